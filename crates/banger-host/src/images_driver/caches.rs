//! Caches of boots.

use std::collections::HashSet;
use std::path::PathBuf;

use banger_api::ApiError;

use super::LocalImages;

impl LocalImages {
    /// Cached files that a start may be using: initramfs archives of the kernels with this agent,
    /// and blank disks.
    pub(super) fn used_caches(&self) -> Result<HashSet<PathBuf>, ApiError> {
        let kernels = self.kernels.list().objects;
        let of_kernels = kernels.iter().map(|(record, _)| {
            self.initramfs
                .path(&record.id, &self.agent)
                .map_err(|error| banger_image::advice::fetch(&error))
        });
        let mut used = of_kernels.collect::<Result<HashSet<_>, _>>()?;
        let blanks = std::fs::read_dir(self.layout.blank_disks());
        used.extend(blanks.into_iter().flatten().flatten().map(|entry| entry.path()));
        Ok(used)
    }
}
