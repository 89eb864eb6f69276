//! Work disk: a second disk, mounted at `/root`, which survives a rebuild of the root disk.
//!
//! The VM of an image build has none: its `/root` becomes part of the image.
//!
//! Its size only grows: a start enlarges the file, and the agent the file system on it.

use core::cmp::Ordering;

use banger_api::operation::stage;

use crate::capability::{Capability, Change, Slot, SlotStep, Use};
use crate::change::only_grows;
use crate::oplog::StepId;

/// The disk.
pub const WORK_DISK: StepId = StepId::new("work_disk");

/// The size of the disk's file in a run. It has no undo, because the file never shrinks.
pub const WORK_DISK_SIZE: StepId = StepId::new("work_disk_size");

/// Work disk.
pub const CAPABILITY: Capability = Capability {
    name: "work_disk",
    plan: Some(|vm, _spec| if vm.build.is_some() { Use::Unused } else { Use::Used }),
    change: Some(|old, new, _run| match new.work_bytes.cmp(&old.work_bytes) {
        Ordering::Less => Change::Refused(only_grows("work disk", old.work_bytes)),
        Ordering::Equal => Change::None,
        Ordering::Greater => Change::NextStart,
    }),
    live: None,
    steps: &[
        SlotStep { id: WORK_DISK, slot: Slot::Lasting, stage: stage::PREPARE_DISKS },
        SlotStep { id: WORK_DISK_SIZE, slot: Slot::AfterDisks, stage: stage::PREPARE_DISKS },
    ],
};
