//! Storage drivers. They differ in how the root disk is created from the image:
//!
//! - `overlay`: the image is read-only and shared; the root disk is a private ext4 layer that the
//!   agent mounts over it (overlayfs). Nothing is copied.
//! - `copy`: the root disk is a sparse copy of the image, grown to its virtual size; the guest
//!   grows the file system.
//!
//! - `reflink`: the same with a clone that shares its blocks with the image, on file systems with
//!   FICLONE.
//! - `dm-snapshot`: the root disk is a device created by the helper from the image and a sparse
//!   file of changes.
//!
//! The work disk is a capability of its own.

mod blank;
mod disk;
mod reflink;
mod snapshot;

pub use blank::{Blanks, Profile};
pub use disk::{
    clone_or_copy_of, copy_of, grow as grow_disk, make_folder, remove as remove_disk, remove_folder,
};
pub use reflink::reflinks;
pub use snapshot::SnapshotRoot;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use banger_api::size::human_size;
use banger_api::vm::DiskView;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::devices::{Drive, DriveRole, Need, RootContent, SourceKind, StorageAbilities};
use banger_engine::drivers::{Applied, DiskRepair, RootFiles, Storage, Undone};
use banger_engine::plan::{VmPlan, VmSpec};

use crate::failure::{blocking, on_path};
use crate::layout::Layout;
use banger_image::{advice, fetch};

/// Origin of the root disk.
#[derive(Clone)]
pub enum RootFrom {
    /// A private layer over the shared image.
    Layer,
    /// A sparse copy.
    Copy,
    /// A clone that shares its blocks.
    Clone,
    /// A device over the image and a file of changes.
    Snapshot(Arc<dyn SnapshotRoot>),
}

/// Path of a disk that VMs share; it may not exist.
pub type FindDisk = Arc<dyn Fn(&VmPlan) -> PathBuf + Send + Sync>;

/// Read-only disks that VMs share.
#[derive(Clone)]
pub struct Shared {
    /// Root file system of the image.
    pub image: FindDisk,
    /// Modules of the kernel.
    pub modules: FindDisk,
}

/// Requirements and drives of storage whose root disk is a layer in a file.
pub const LAYERS: StorageAbilities = StorageAbilities {
    root: Need::None,
    root_disk: SourceKind::File,
    content: RootContent::Changes,
};
/// The same for a root disk that is a copy of the image.
pub const COPIES: StorageAbilities = StorageAbilities { content: RootContent::Whole, ..LAYERS };
/// The same for a root disk that is a device.
pub const SNAPSHOT: StorageAbilities = StorageAbilities {
    root: Need::Required,
    root_disk: SourceKind::Device,
    content: RootContent::Changes,
};

/// Storage in ordinary files.
pub struct FileStorage {
    layout: Layout,
    from: RootFrom,
    shared: Shared,
    blanks: Blanks,
}

impl FileStorage {
    /// A driver of this kind.
    pub fn new(layout: Layout, from: RootFrom, shared: Shared, blanks: Blanks) -> Self {
        Self { layout, from, shared, blanks }
    }

    /// The VM's private file of its root disk.
    fn root_file(&self, vm: &VmPlan) -> PathBuf {
        match self.from {
            RootFrom::Snapshot(_) => self.layout.root_cow(&vm.id),
            RootFrom::Layer | RootFrom::Copy | RootFrom::Clone => self.layout.root_disk(&vm.id),
        }
    }

    /// The work disk, if the VM has one.
    fn work_disk(&self, vm: &VmPlan) -> Option<PathBuf> {
        vm.build.is_none().then(|| self.layout.work_disk(&vm.id))
    }

    /// The new private file of a reset.
    fn new_root_file(&self, vm: &VmPlan) -> PathBuf {
        self.layout.new_root(&self.root_file(vm))
    }

    /// Creates a private file of a root disk.
    async fn make_root(
        &self,
        target: PathBuf,
        vm: &VmPlan,
        spec: &VmSpec,
    ) -> Result<Applied, ApiError> {
        let size = spec.root_bytes;
        let image = (self.shared.image)(vm);
        if !matches!(self.from, RootFrom::Layer) {
            fits(vm, spec)?;
        }
        let (from, blanks) = (self.from.clone(), self.blanks.clone());
        // A build copies it once more, into the new image.
        let copies = u64::from(vm.build.is_some()) + u64::from(matches!(from, RootFrom::Copy));
        blocking(move || {
            has_room(&image, &target, copies)?;
            match from {
                RootFrom::Layer => disk::copy_of(&blanks.get(size, Profile::Layer)?, &target, size),
                RootFrom::Copy => disk::copy_of(&image, &target, size),
                RootFrom::Clone => disk::clone_of(&image, &target, size),
                RootFrom::Snapshot(_) => snapshot::make_cow(&target, size),
            }
        })
        .await
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

    async fn create_root(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError> {
        self.make_root(self.root_file(vm), vm, spec).await
    }

    async fn remove_root(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        let (target, new) = (self.root_file(vm), self.new_root_file(vm));
        blocking(move || {
            disk::remove(&new)?;
            disk::remove(&target)
        })
        .await
    }

    async fn create_new_root(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError> {
        let (new, image) = (self.new_root_file(vm), (self.shared.image)(vm));
        let target = new.clone();
        blocking(move || {
            std::fs::metadata(&image).map_err(|error| on_path("find the image", &image, &error))?;
            disk::remove(&new)
        })
        .await?;
        let applied = self.make_root(target.clone(), vm, spec).await?;
        blocking(move || disk::sync(&target)).await?;
        Ok(applied)
    }

    async fn remove_new_root(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        let new = self.new_root_file(vm);
        blocking(move || disk::remove(&new)).await
    }

    async fn replace_root(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        let (new, target) = (self.new_root_file(vm), self.root_file(vm));
        blocking(move || disk::replace(&new, &target)).await
    }

    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError> {
        let image = (self.shared.image)(vm);
        let mut disks = vec![self.root_file(vm), image.clone()];
        disks.extend(self.work_disk(vm));
        let size = match self.from {
            RootFrom::Snapshot(_) => snapshot::cow_bytes(spec.root_bytes),
            RootFrom::Layer | RootFrom::Copy | RootFrom::Clone => spec.root_bytes,
        };
        let root = self.root_file(vm);
        blocking(move || {
            // Regular files need no attaching; a missing one is reported better here than by a VMM.
            for path in &disks {
                std::fs::metadata(path).map_err(|error| on_path("find the disk", path, &error))?;
            }
            // The size may have been changed since the last run.
            disk::grow(&root, size)
        })
        .await?;
        let RootFrom::Snapshot(root) = &self.from else { return Ok(Applied::AlreadyThere) };
        let cow = self.root_file(vm);
        let (image, cow) = blocking(move || snapshot::open(&image, &cow)).await?;
        root.attach(&vm.id, image, cow, spec.root_bytes).await
    }

    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        match &self.from {
            RootFrom::Snapshot(root) => root.detach(&vm.id).await,
            _ => Ok(Undone::WasAbsent),
        }
    }

    fn abilities(&self) -> StorageAbilities {
        match self.from {
            RootFrom::Snapshot(_) => SNAPSHOT,
            RootFrom::Layer => LAYERS,
            RootFrom::Copy | RootFrom::Clone => COPIES,
        }
    }

    fn repair(&self) -> Option<&dyn DiskRepair> {
        matches!(self.from, RootFrom::Snapshot(_)).then_some(self)
    }

    fn drives(&self, vm: &VmPlan) -> Vec<Drive> {
        let root = match self.from {
            RootFrom::Snapshot(_) => Drive::device(DriveRole::Root),
            RootFrom::Layer | RootFrom::Copy | RootFrom::Clone => {
                Drive::file(DriveRole::Root, self.root_file(vm))
            }
        };
        let mut drives = vec![root];
        drives.extend(self.work_disk(vm).map(|disk| Drive::file(DriveRole::Work, disk)));
        if matches!(self.from, RootFrom::Layer) {
            drives.push(Drive::file(DriveRole::Image, (self.shared.image)(vm)));
        }
        drives.push(Drive::file(DriveRole::Modules, (self.shared.modules)(vm)));
        drives
    }

    fn root_files(&self, vm: &VmPlan, spec: &VmSpec) -> RootFiles {
        let (own, image) = (self.root_file(vm), (self.shared.image)(vm));
        match self.from {
            RootFrom::Layer => RootFiles::Layer { layer: own, image },
            RootFrom::Copy | RootFrom::Clone => RootFiles::Whole { disk: own },
            RootFrom::Snapshot(_) => {
                RootFiles::Snapshot { changes: own, image, bytes: spec.root_bytes }
            }
        }
    }

    async fn usage(&self, vm: &VmPlan, spec: &VmSpec) -> DiskView {
        let (root, work) = (self.root_file(vm), self.layout.work_disk(&vm.id));
        let measure = match self.from {
            // Blocks shared with the image are not counted.
            RootFrom::Clone => disk::own,
            _ => disk::allocated,
        };
        let used = blocking(move || {
            Ok((measure(&root).unwrap_or_default(), measure(&work).unwrap_or_default()))
        });
        let (root_used_bytes, work_used_bytes) = used.await.unwrap_or_default();
        DiskView {
            root_bytes: spec.root_bytes,
            root_used_bytes,
            work_bytes: spec.work_bytes,
            work_used_bytes,
        }
    }
}

#[async_trait]
impl DiskRepair for FileStorage {
    async fn repair(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        match &self.from {
            RootFrom::Snapshot(root) => {
                snapshot::restore(root.as_ref(), &vm.id, &self.root_file(vm)).await
            }
            RootFrom::Layer | RootFrom::Copy | RootFrom::Clone => Ok(Applied::AlreadyThere),
        }
    }
}

/// Refuses copies of the image for which there is no space; `target` is the first of them.
fn has_room(image: &Path, target: &Path, copies: u64) -> Result<(), ApiError> {
    if copies == 0 || target.exists() {
        return Ok(());
    }
    let bytes = disk::allocated(image).map_err(|error| on_path("find the image", image, &error))?;
    let folder = target.parent().unwrap_or(target);
    fetch::need_space(folder, bytes.saturating_mul(copies)).map_err(|error| advice::fetch(&error))
}

/// Checks that the image fits into the root disk.
fn fits(vm: &VmPlan, spec: &VmSpec) -> Result<(), ApiError> {
    let (need, has) = (vm.boot.image_bytes, spec.root_bytes);
    if need <= has {
        return Ok(());
    }
    let name = &vm.boot.image_name;
    let text = format!("a root disk of {} is too small for image `{name}`", human_size(has));
    Err(ApiError::new(ErrorCode::BadRequest, text)
        .with_hint(Hint::EnlargeRootDisk { least_bytes: need }))
}
