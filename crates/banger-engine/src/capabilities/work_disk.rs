//! Work disk: a second disk, mounted at `/root`, which survives a rebuild of the root disk.

use banger_api::operation::stage;

use crate::capability::{Capability, Change, Slot, SlotStep};
use crate::oplog::StepId;

/// The disk.
pub const WORK_DISK: StepId = StepId::new("work_disk");

/// Work disk.
pub const CAPABILITY: Capability = Capability {
    name: "work_disk",
    plan: None,
    change: Some(|old, new| {
        if new.work_bytes < old.work_bytes {
            return Change::Refused("a work disk only grows".into());
        }
        if new.work_bytes == old.work_bytes { Change::None } else { Change::NextStart }
    }),
    steps: &[SlotStep { id: WORK_DISK, slot: Slot::Lasting, stage: stage::PREPARE_DISKS }],
};
