//! Work seeds of images: found for a new work disk, and made in the background where one is
//! missing.

use std::path::PathBuf;
use std::sync::Arc;

use banger_engine::plan::VmPlan;
use banger_image::fetch::NoProgress;
use banger_image::images::{ImageStore, WorkSeed};

/// A seed that work disks are copied from, and its length in bytes.
pub type FindSeed = Arc<dyn Fn(&VmPlan) -> Option<(PathBuf, u64)> + Send + Sync>;

/// Finds seeds in this store. An image of an earlier version gets its seed for the VMs after this
/// one.
pub fn find(images: Arc<ImageStore>) -> FindSeed {
    Arc::new(move |vm| {
        let image = images.resolve(vm.boot.image.as_str()).ok()?;
        match image.work_seed() {
            WorkSeed::Disk(path, bytes) => Some((path, bytes)),
            WorkSeed::Few => None,
            WorkSeed::Missing => {
                let (images, id) = (images.clone(), image.record.id);
                std::thread::spawn(move || match images.make_work_seed(&id, &NoProgress) {
                    Ok(()) => tracing::info!(image = id, "the work seed was made"),
                    Err(error) => tracing::warn!(image = id, %error, "no work seed"),
                });
                None
            }
        }
    })
}
