//! Which part of the trees a round looks at: the folders in which something may have changed.

use std::collections::BTreeMap;

use crate::tree::parts;

/// Folders whose entries may have changed since the base was settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Whether this folder's own entries may have.
    here: bool,
    /// Folders below in which some may have, by name.
    below: BTreeMap<Vec<u8>, Touched>,
}

impl Touched {
    /// Adds a folder.
    pub fn insert(&mut self, folder: &[u8]) {
        let mut at = self;
        for part in parts(folder) {
            // Mostly it is known already.
            if !at.below.contains_key(part) {
                at.below.insert(part.to_vec(), Self::default());
            }
            let Some(next) = at.below.get_mut(part) else { return };
            at = next;
        }
        at.here = true;
    }

    /// Adds the folders of another one.
    pub fn merge(&mut self, other: Self) {
        self.here |= other.here;
        for (name, theirs) in other.below {
            self.below.entry(name).or_default().merge(theirs);
        }
    }
}

/// What a walk through both sides and the base visits.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everything.
    All,
    /// Entries of these folders. Where not both sides have a folder, everything below: what is to
    /// be done there depends on all of it.
    Only(&'a Touched),
}

impl<'a> Scope<'a> {
    /// The names in a folder that are visited; `None`: all.
    pub fn names(self) -> Option<impl Iterator<Item = &'a Vec<u8>>> {
        match self {
            Self::Only(touched) if !touched.here => Some(touched.below.keys()),
            Self::All | Self::Only(_) => None,
        }
    }

    /// What is visited in an entry that is a folder on both sides.
    pub fn below(self, name: &[u8]) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Only(touched) => touched.below.get(name).map(Self::Only),
        }
    }
}
