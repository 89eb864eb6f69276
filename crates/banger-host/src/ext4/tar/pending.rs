//! Adds entries to a tree.

use super::{Entry, TarError, What};
use crate::ext4::tree::{Tree, TreeError};

/// Hard links whose file has not come yet.
#[derive(Debug, Default)]
pub struct Pending(Vec<(Vec<u8>, Vec<u8>)>);

impl Pending {
    /// Makes them, once the whole archive is read; a name that the archive has given to something
    /// else meanwhile stays as it is.
    ///
    /// # Errors
    /// One whose file never came.
    pub fn finish(mut self, tree: &mut Tree) -> Result<(), TarError> {
        // A link may lead to another one of them.
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
/// A path the tree cannot take.
pub fn add(tree: &mut Tree, entry: Entry, pending: &mut Pending) -> Result<(), TarError> {
    match entry.what {
        What::HardLink(target) => match tree.link(&entry.path, &target) {
            Err(TreeError::BadLink { .. }) if tree.get(&target).is_none() => {
                tree.hold(entry.path.len() + target.len())?;
                pending.0.push((entry.path, target));
            }
            linked => linked?,
        },
        What::Node(kind) => {
            let id = tree.put(&entry.path, kind, entry.meta)?;
            tree.set_xattrs(id, entry.xattrs.into_iter().collect())?;
        }
    }
    Ok(())
}
