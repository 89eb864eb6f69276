//! Removal of what is not needed any more.

use super::{ImageStore, sandbox};
use crate::fetch::{Deleted, FetchError, InUse};

impl ImageStore {
    /// Removes a name.
    ///
    /// # Errors
    /// unlink(2).
    pub fn untag(&self, name: &str) -> Result<(), FetchError> {
        self.store.remove_name(name)
    }

    /// Deletes images without a name and a VM, and incomplete images of a crash; returns the former
    /// and the total of freed bytes.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn prune(&self, in_use: &[InUse]) -> Result<(Vec<Deleted>, u64), FetchError> {
        let incomplete_bytes = self.clean_staging()?;
        let deleted = self.store.prune(in_use)?;
        let bytes = deleted.iter().map(|deleted| deleted.freed_bytes).sum::<u64>();
        Ok((deleted, bytes + incomplete_bytes))
    }

    /// Removes incomplete images of a crash, and downloads that were not used for long; returns
    /// the freed bytes.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn clean_staging(&self) -> Result<u64, FetchError> {
        let freed = self.store.clean_staging(&|folder| sandbox::clean(folder, &self.tools))?;
        Ok(freed + self.layers.clean()?)
    }
}
