//! What changed since the last common state: on one side, on the other, on both. Pure.

use std::collections::BTreeSet;

use crate::manifest::{Entry, Manifest};

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path in the work tree.
    pub path: Vec<u8>,
    /// The file in the common state.
    pub base: Option<Entry>,
    /// The file now.
    pub now: Option<Entry>,
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is new.
    Added,
    /// Content or kind differ.
    Modified,
    /// It is gone.
    Deleted,
}

impl Change {
    /// How the file differs.
    pub fn effect(&self) -> Effect {
        match (&self.base, &self.now) {
            (None, _) => Effect::Added,
            (Some(_), None) => Effect::Deleted,
            (Some(_), Some(_)) => Effect::Modified,
        }
    }
}

/// Both sides since the common state. A path that looks the same on both sides is in none of the
/// lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Changed in the guest only.
    pub guest: Vec<Change>,
    /// Changed on the host only.
    pub host: Vec<Change>,
    /// Changed on both sides, or in the way of a change of the other side.
    pub conflicts: Vec<Vec<u8>>,
}

impl Comparison {
    /// Compares.
    pub fn of(base: &Manifest, guest: &Manifest, host: &Manifest) -> Self {
        let mut comparison = Self::default();
        let paths: BTreeSet<&Vec<u8>> =
            base.0.keys().chain(guest.0.keys()).chain(host.0.keys()).collect();
        for path in paths {
            let (was, there, here) = (base.get(path), guest.get(path), host.get(path));
            let change = |now: Option<&Entry>| Change {
                path: path.clone(),
                base: was.cloned(),
                now: now.cloned(),
            };
            if there == here {
                continue;
            } else if here == was {
                comparison.guest.push(change(there));
            } else if there == was {
                comparison.host.push(change(here));
            } else {
                comparison.conflicts.push(path.clone());
            }
        }
        comparison.separate_folders(guest, host);
        comparison
    }

    /// A file of one side where the other side made a folder is a conflict.
    fn separate_folders(&mut self, guest: &Manifest, host: &Manifest) {
        let made = |changes: &[Change], side: &Manifest| -> BTreeSet<Vec<u8>> {
            let made = changes.iter().map(|change| &change.path).chain(&self.conflicts);
            made.filter(|path| side.get(path).is_some()).cloned().collect()
        };
        let (guest, host) = (made(&self.guest, guest), made(&self.host, host));
        let mut bad = BTreeSet::new();
        for (ones, others) in [(&guest, &host), (&host, &guest)] {
            for path in ones {
                for folder in folders(path).filter(|folder| others.contains(*folder)) {
                    bad.insert(path.clone());
                    bad.insert(folder.to_vec());
                }
            }
        }
        self.guest.retain(|change| !bad.contains(&change.path));
        self.host.retain(|change| !bad.contains(&change.path));
        self.conflicts.extend(bad);
        self.conflicts.sort();
        self.conflicts.dedup();
    }

    /// Whether both sides look the same.
    pub fn is_equal(&self) -> bool {
        self.guest.is_empty() && self.host.is_empty() && self.conflicts.is_empty()
    }
}

/// The folders that a path is in, outermost first.
pub fn folders(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter_map(|(place, _)| path.get(..place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;

    fn files(list: &[(&str, char)]) -> Manifest {
        let entry =
            |content: char| Entry { kind: Kind::File, object: content.to_string().repeat(40) };
        Manifest(list.iter().map(|(p, c)| (p.as_bytes().to_vec(), entry(*c))).collect())
    }

    fn paths(changes: &[Change]) -> Vec<(&str, Effect)> {
        changes.iter().map(|c| (std::str::from_utf8(&c.path).unwrap(), c.effect())).collect()
    }

    #[test]
    fn each_file_is_on_the_side_that_changed_it() {
        let base = files(&[
            ("same", '0'),
            ("g", '0'),
            ("h", '0'),
            ("both", '0'),
            ("gd", '0'),
            ("dd", '0'),
        ]);
        let guest = files(&[
            ("same", '0'),
            ("g", '1'),
            ("h", '0'),
            ("both", '1'),
            ("alike", '5'),
            ("ga", '1'),
        ]);
        let host = files(&[
            ("same", '0'),
            ("g", '0'),
            ("h", '2'),
            ("both", '2'),
            ("alike", '5'),
            ("gd", '0'),
        ]);
        let found = Comparison::of(&base, &guest, &host);
        let expected = [("g", Effect::Modified), ("ga", Effect::Added), ("gd", Effect::Deleted)];
        assert_eq!(paths(&found.guest), expected);
        assert_eq!(paths(&found.host), [("h", Effect::Modified)]);
        assert_eq!(found.conflicts, [b"both".to_vec()]);
    }

    #[test]
    fn deleted_on_one_side_and_changed_on_the_other_is_a_conflict() {
        let found = Comparison::of(&files(&[("a", '0')]), &files(&[]), &files(&[("a", '1')]));
        assert_eq!(found.conflicts, [b"a".to_vec()]);
        assert!(Comparison::of(&files(&[("a", '0')]), &files(&[]), &files(&[])).is_equal());
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_a_conflict() {
        let found = Comparison::of(
            &files(&[]),
            &files(&[("a/b/c", '1')]),
            &files(&[("a", '1'), ("x", '1')]),
        );
        assert_eq!(found.conflicts, [b"a".to_vec(), b"a/b/c".to_vec()]);
        assert_eq!(paths(&found.host), [("x", Effect::Added)]);
        // Also where a file of the folder is a conflict already.
        let base = files(&[("a/b", '0'), ("f", '0')]);
        let guest = files(&[("a", '1'), ("f/in", '1')]);
        let found = Comparison::of(&base, &guest, &files(&[("a/b", '2'), ("f", '2')]));
        assert_eq!(found.conflicts, [&b"a"[..], b"a/b", b"f", b"f/in"]);
        // One side may turn a file into a folder.
        let base = files(&[("a", '0')]);
        let found = Comparison::of(&base, &files(&[("a/b", '1')]), &base);
        assert_eq!(paths(&found.guest), [("a", Effect::Deleted), ("a/b", Effect::Added)]);
    }
}
