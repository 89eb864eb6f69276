//! A stopped VM whose root disk is read: until the reader is done, the VM does not change. Requests
//! are accepted and wait; a forced delete cancels the reader.

use std::sync::Arc;

use banger_api::vm::{VmAction, VmState};
use banger_api::{ApiError, ErrorCode, Hint};
use tokio::sync::oneshot;

use super::VmTask;
use crate::ops::Op;
use crate::record::VmRecord;
use crate::refusals;

/// A VM whose disk may be read until this is dropped.
pub struct Lent {
    /// The VM.
    pub record: VmRecord,
    _returned: oneshot::Sender<()>,
}

/// The task's part.
pub(super) struct Lending {
    op: Arc<Op>,
    returned: oneshot::Receiver<()>,
}

/// Resolves when the disk is not read any more; never, if it is not read.
pub(super) async fn returned(lending: &mut Option<Lending>) {
    match lending {
        // The sender is only dropped.
        Some(lending) => drop((&mut lending.returned).await),
        None => std::future::pending().await,
    }
}

impl VmTask {
    /// Lends the VM to an operation on an image.
    pub(super) async fn lend(&mut self, op: Arc<Op>) -> Result<Lent, ApiError> {
        let name = &self.record.plan.name;
        let current = self.job.as_ref().map(|job| &job.op);
        if let Some(current) = current.or(self.lending.as_ref().map(|lending| &lending.op)) {
            let text = format!("`{name}` has an operation in progress");
            return Err(ApiError::new(ErrorCode::Busy, text)
                .with_hint(Hint::WaitForOperation { operation: current.id.clone() }));
        }
        if self.record.state != VmState::Stopped {
            return Err(refusals::not_stopped(name, "commit", self.record.state));
        }
        if self.record.reset.is_some() {
            let text = format!("the reset of `{name}` is not complete");
            return Err(ApiError::new(ErrorCode::WrongState, text)
                .with_hint(Hint::ask(name, VmAction::Reset {})));
        }
        let vmm = self.shared.drivers.vmm(&self.record.plan)?;
        if let Some(stray) = vmm.stray(&self.record.plan).await {
            let text = format!("a VMM of `{name}` is alive as process {}", stray.pid);
            return Err(ApiError::new(ErrorCode::WrongState, text)
                .with_hint(Hint::ask(name, VmAction::Start {})));
        }
        let (sender, returned) = oneshot::channel();
        self.publisher.send_modify(|published| published.operation = Some(op.id.clone()));
        self.shared.changed();
        self.lending = Some(Lending { op, returned });
        Ok(Lent { record: self.record.clone(), _returned: sender })
    }

    /// The disk is not read any more.
    pub(super) fn end_lending(&mut self) {
        self.lending = None;
        self.publisher.send_modify(|published| published.operation = None);
        self.shared.changed();
    }

    /// Cancels the operation that reads the disk, if `action` makes it pointless.
    pub(super) fn interrupt_lending(&self, action: &VmAction) {
        if let (Some(lending), VmAction::Delete { force: true }) = (&self.lending, action) {
            lending.op.cancel();
        }
    }
}
