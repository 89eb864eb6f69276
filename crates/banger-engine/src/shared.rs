//! State shared by all operations, and the published state of a VM.

use std::sync::{Arc, OnceLock, Weak};

use banger_api::operation::Subject;
use banger_api::{ApiError, OpId};
use tokio::sync::{RwLock, watch};

use crate::boot_watch::RunBoot;
use crate::drivers::Drivers;
use crate::engine::Engine;
use crate::ops::{Op, Ops};
use crate::record::VmRecord;
use crate::store::Store;

/// State shared by all operations.
pub struct Shared {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The drivers.
    pub drivers: Arc<Drivers>,
    /// Operations.
    pub ops: Ops,
    /// Number of changes of all VMs.
    pub changes: watch::Sender<u64>,
    /// The engine, once it is open.
    pub engine: OnceLock<Weak<Engine>>,
    /// Read lock: from the choice of an image and a kernel until the VM that uses them is on
    /// record. Write lock: while an image is deleted or its names change.
    pub images_in_use: Arc<RwLock<()>>,
}

impl Shared {
    /// Announces that a VM was added, changed or removed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// An error as its operation reports it: that of a full disk with what a prune would free.
    pub async fn explained(&self, error: ApiError) -> ApiError {
        match self.engine.get().and_then(Weak::upgrade) {
            Some(engine) => Box::pin(engine.with_prune(error)).await,
            None => error,
        }
    }

    /// A crash point of an operation on an image or kernel.
    pub fn crash_point(&self, kind: &str, place: &str) {
        (self.drivers.crash)(&format!("{kind}.{place}"));
    }

    /// A new operation with an id that no operation in memory has.
    pub fn new_op(&self, kind: &str, subject: &Subject) -> Arc<Op> {
        loop {
            let id = OpId::from_entropy(self.drivers.host.entropy());
            if self.ops.get(&id).is_none() {
                return Op::new(id, kind, subject.clone());
            }
        }
    }
}

/// The published state of a VM.
#[derive(Debug, Clone)]
pub struct Published {
    /// The VM.
    pub record: Arc<VmRecord>,
    /// The operation in progress.
    pub operation: Option<OpId>,
    /// Boot progress of the guest.
    pub boot: Option<RunBoot>,
}
