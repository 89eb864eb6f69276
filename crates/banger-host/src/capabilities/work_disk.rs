//! Work disk: a sparse ext4 of its final virtual size, copied from a blank one, or from the work
//! seed of the image, which the guest enlarges.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::doctor::Check;
use banger_engine::capabilities::work_disk::{CAPABILITY, WORK_DISK, WORK_DISK_SIZE};
use banger_engine::capability::{Doctor, Effect, Effects, Made, VmContext};
use banger_engine::devices::DriveRole;
use banger_engine::drivers::Undone;

use super::{HostCapability, Parts};
use crate::failure::blocking;
use crate::guest::disk_ref;
use crate::handover::Handover;
use crate::layout::Layout;
use crate::storage::{self, Blanks, Profile};
use crate::work_seeds::FindSeed;

/// The work disks of this host.
#[derive(Clone)]
pub struct WorkDisk {
    layout: Layout,
    blanks: Blanks,
    seeds: FindSeed,
}

/// The size of the work disk's file.
struct Size(Layout);

struct Mke2fs(Option<PathBuf>);

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let disks = WorkDisk::new(parts.layout.clone(), parts.blanks.clone(), parts.seeds.clone());
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            steps: vec![
                (WORK_DISK, Arc::new(disks)),
                (WORK_DISK_SIZE, Arc::new(Size(parts.layout.clone()))),
            ],
            doctor: Some(Arc::new(Mke2fs(parts.mke2fs.clone()))),
            ..Effects::default()
        },
        guest: Some(Arc::new(|_vm, devices, config| {
            config.work = disk_ref(devices, DriveRole::Work);
            Ok(Handover::default())
        })),
    }
}

impl WorkDisk {
    /// Work disks in the folders of `layout`.
    pub fn new(layout: Layout, blanks: Blanks, seeds: FindSeed) -> Self {
        Self { layout, blanks, seeds }
    }
}

#[async_trait]
impl Effect for WorkDisk {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let target = self.layout.work_disk(&context.vm.id);
        let (blanks, size) = (self.blanks.clone(), context.spec.work_bytes);
        let (seeds, vm) = (self.seeds.clone(), context.vm.clone());
        let copied = blocking(move || match seeds(&vm).filter(|(_, bytes)| *bytes <= size) {
            Some((seed, _)) => storage::clone_or_copy_of(&seed, &target, size),
            // The agent fills it from the image.
            None => storage::copy_of(&blanks.get(size, Profile::Work)?, &target, size),
        });
        copied.await.map(Made::from)
    }

    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError> {
        let target = self.layout.work_disk(&context.vm.id);
        blocking(move || storage::remove_disk(&target)).await
    }
}

#[async_trait]
impl Effect for Size {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let (disk, size) = (self.0.work_disk(&context.vm.id), context.spec.work_bytes);
        blocking(move || storage::grow_disk(&disk, size)).await.map(Made::from)
    }

    async fn undo(&self, _context: VmContext<'_>) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }
}

#[async_trait]
impl Doctor for Mke2fs {
    async fn checks(&self) -> Vec<Check> {
        vec![crate::doctor::packaged("mke2fs", self.0.clone(), "e2fsprogs", &["create"])]
    }
}
