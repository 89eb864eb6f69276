//! What everything in the engine shares, and what everybody may see of a VM.

use std::sync::Arc;

use banger_api::OpId;
use banger_api::operation::Subject;
use tokio::sync::watch;

use crate::boot_watch::RunBoot;
use crate::drivers::Drivers;
use crate::ops::{Op, Ops};
use crate::record::VmRecord;
use crate::store::Store;

/// What all operations share.
pub struct Shared {
    /// Memory.
    pub store: Arc<dyn Store>,
    /// Hands.
    pub drivers: Arc<Drivers>,
    /// Operations.
    pub ops: Ops,
    /// Counts changes of any VM, for those who look at all of them.
    pub changes: watch::Sender<u64>,
}

impl Shared {
    /// Records that a VM was added, changed or removed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Reaches a crash point of an operation on no VM.
    pub fn crash_point(&self, kind: &str, place: &str) {
        (self.drivers.crash)(&format!("{kind}.{place}"));
    }

    /// A new operation, under an id that no operation of late has.
    pub fn new_op(&self, kind: &str, subject: &Subject) -> Arc<Op> {
        loop {
            let id = OpId::from_entropy(self.drivers.host.entropy());
            if self.ops.get(&id).is_none() {
                return Op::new(id, kind, subject.clone());
            }
        }
    }
}

/// What everybody may see of a VM at any time.
#[derive(Debug, Clone)]
pub struct Published {
    /// The VM.
    pub record: Arc<VmRecord>,
    /// The operation in progress.
    pub operation: Option<OpId>,
    /// How far the guest of a run has booted.
    pub boot: Option<RunBoot>,
}
