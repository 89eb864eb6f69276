//! Adds entries to a tree.

use super::{Entry, EntryKind, TarError};
use crate::ext4::tree::{Tree, TreeError};

/// Hard links that precede their target in the archive.
#[derive(Debug, Default)]
pub struct Pending(Vec<(Vec<u8>, Vec<u8>)>);

impl Pending {
    /// Adds them after the last entry; a name that exists by then is kept.
    ///
    /// # Errors
    /// A hard link without a target.
    pub fn finish(mut self, tree: &mut Tree) -> Result<(), TarError> {
        // The target may itself be a pending link.
        loop {
            let before = self.0.len();
            let mut failed = None;
            self.0.retain(|(path, target)| {
                if tree.get(path).is_some() {
                    return false;
                }
                match tree.link(path, target) {
                    Ok(()) => false,
                    Err(error) => {
                        failed = failed.take().or(Some(error));
                        true
                    }
                }
            });
            match failed {
                None => return Ok(()),
                Some(error) if self.0.len() == before => return Err(error.into()),
                Some(_) => {}
            }
        }
    }
}

/// Adds an entry to a tree.
///
/// # Errors
/// An invalid path.
pub fn add(tree: &mut Tree, entry: Entry, pending: &mut Pending) -> Result<(), TarError> {
    match entry.kind {
        EntryKind::HardLink(target) => match tree.link(&entry.path, &target) {
            Err(TreeError::BadLink { .. }) if tree.get(&target).is_none() => {
                tree.count_bytes(entry.path.len() + target.len())?;
                pending.0.push((entry.path, target));
            }
            linked => linked?,
        },
        EntryKind::Node(kind) => {
            let id = tree.put(&entry.path, kind, entry.meta)?;
            tree.set_xattrs(id, entry.xattrs.into_iter().collect())?;
        }
    }
    Ok(())
}
