//! Storage drivers that need no privilege.
//!
//! - `overlay`: the image is read-only and shared; the root disk is a private ext4 layer that the
//!   agent joins over it. Nothing is copied.
//! - `copy`: the root disk is a sparse copy of the image, grown to its virtual size; the guest
//!   grows the file system.
//!
//! In both the work disk is a blank ext4 of its final size.

mod blank;
mod disk;

pub use blank::{Blanks, Profile};
pub use disk::{make_folder, remove_folder};

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use banger_api::size::human_size;
use banger_api::vm::DiskView;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Applied, Storage, Undone};
use banger_engine::plan::VmPlan;

use crate::failure::{blocking, on_path};
use crate::layout::Layout;

/// How the root disk comes from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFrom {
    /// A private layer over the shared image.
    Layer,
    /// A sparse copy.
    Copy,
}

/// Finds the root file system of an image.
pub type ImageRoot = Arc<dyn Fn(&VmPlan) -> PathBuf + Send + Sync>;

/// Storage in ordinary files.
pub struct FileStorage {
    layout: Layout,
    from: RootFrom,
    image_root: ImageRoot,
    blanks: Blanks,
}

impl FileStorage {
    /// A driver of this kind.
    pub fn new(layout: Layout, from: RootFrom, image_root: ImageRoot, blanks: Blanks) -> Self {
        Self { layout, from, image_root, blanks }
    }
}

#[async_trait]
impl Storage for FileStorage {
    async fn create_folder(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        let folder = self.layout.vm(&vm.id);
        let logs = self.layout.logs(&vm.id);
        let shim = self.layout.shim_state(&vm.id);
        blocking(move || {
            let applied = disk::make_folder(&folder)?;
            disk::make_folder(&logs)?;
            disk::make_folder(&shim)?;
            Ok(applied)
        })
        .await
    }

    async fn remove_folder(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        let folder = self.layout.vm(&vm.id);
        blocking(move || disk::remove_folder(&folder)).await
    }

    async fn create_root(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        let target = self.layout.root_disk(&vm.id);
        let size = vm.root_bytes;
        match self.from {
            RootFrom::Layer => {
                let blanks = self.blanks.clone();
                blocking(move || disk::copy_of(&blanks.get(size, Profile::Layer)?, &target, size))
                    .await
            }
            RootFrom::Copy => {
                let (need, has) = (vm.boot.image_bytes, size);
                if need > has {
                    let text = format!(
                        "a root disk of {} is too small for image `{}`",
                        human_size(has),
                        vm.boot.image_name
                    );
                    return Err(ApiError::new(ErrorCode::BadRequest, text)
                        .with_hint(format!("it needs at least {}", human_size(need))));
                }
                let image = (self.image_root)(vm);
                blocking(move || disk::copy_of(&image, &target, size)).await
            }
        }
    }

    async fn remove_root(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        let target = self.layout.root_disk(&vm.id);
        blocking(move || disk::remove(&target)).await
    }

    async fn create_work(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        let target = self.layout.work_disk(&vm.id);
        let (blanks, size) = (self.blanks.clone(), vm.work_bytes);
        blocking(move || disk::copy_of(&blanks.get(size, Profile::Work)?, &target, size)).await
    }

    async fn remove_work(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        let target = self.layout.work_disk(&vm.id);
        blocking(move || disk::remove(&target)).await
    }

    async fn attach(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        let image = (self.image_root)(vm);
        let disks = [self.layout.root_disk(&vm.id), self.layout.work_disk(&vm.id), image];
        blocking(move || {
            // Ordinary files need no attaching; that they are there is said better here than by
            // QEMU.
            for path in &disks {
                std::fs::metadata(path).map_err(|error| on_path("find the disk", path, &error))?;
            }
            Ok(Applied::AlreadyThere)
        })
        .await
    }

    async fn detach(&self, _vm: &VmPlan) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }

    async fn usage(&self, vm: &VmPlan) -> DiskView {
        let used = |path: PathBuf| disk::allocated(&path).unwrap_or_default();
        DiskView {
            root_bytes: vm.root_bytes,
            root_used_bytes: used(self.layout.root_disk(&vm.id)),
            work_bytes: vm.work_bytes,
            work_used_bytes: used(self.layout.work_disk(&vm.id)),
        }
    }
}
