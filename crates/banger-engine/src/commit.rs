//! Commits: the root disk of a stopped VM becomes an image.
//!
//! The VM is lent to the operation ([`crate::vm_task`]): it neither starts nor disappears while its
//! disk is read. Nothing of the VM changes, so there is nothing to undo; the image appears with one
//! rename, complete or not at all.

use std::sync::Arc;

use banger_api::images::{CommittedFrom, ImageCommitRequest, TakenName};
use banger_api::operation::{Accepted, Subject, stage};
use banger_api::vm::VmState;
use banger_api::{ApiError, ErrorCode};
use tokio::sync::oneshot;

use crate::builds::Commit;
use crate::engine::Engine;
use crate::ops::{Op, OpProgress};
use crate::progress::Progress as _;
use crate::vm_task::{Lent, Message};

impl Engine {
    /// Makes an image of the root disk of a stopped VM.
    ///
    /// # Errors
    /// A name that is invalid or taken; no such VM, or an ambiguous reference; an error of the
    /// store. Whether the VM is stopped is the operation's to find out, as it may change until
    /// then; but a VM that runs now is refused.
    pub async fn commit_image(&self, request: ImageCommitRequest) -> Result<Accepted, ApiError> {
        let taken = TakenName::replacing(request.replace);
        self.check_name_available(&request.name, taken).await?;
        let record = self.handle(&request.vm)?.published.borrow().record.clone();
        if matches!(record.state, VmState::Running | VmState::Paused) {
            let name = &record.plan.name;
            return Err(crate::refusals::not_stopped(name, "commit", record.state));
        }
        let vm = record.plan.id.to_string();
        let subject = Subject::Image { name: request.name.clone(), id: None };
        let name = request.name;
        let work = move |engine: Arc<Self>, op: Arc<Op>| async move {
            let progress = Arc::new(OpProgress::new(op.clone(), stage::CAPTURE_IMAGE));
            let lent = engine.lend(&vm, &op).await?;
            let made = engine.commit_lent(&lent, name, taken, &progress).await;
            drop(lent);
            let made = made?;
            engine.settle_replaced(progress.as_ref()).await;
            Ok(made)
        };
        self.in_background("commit_image", subject, work).await
    }

    async fn lend(&self, vm: &str, op: &Arc<Op>) -> Result<Lent, ApiError> {
        let gone = || ApiError::new(ErrorCode::NotFound, "the VM was deleted in the meantime");
        let (reply, answer) = oneshot::channel();
        let message = Message::Lend { op: op.clone(), reply };
        self.handle(vm)?.mailbox.send(message).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn commit_lent(
        &self,
        lent: &Lent,
        name: String,
        taken: TakenName,
        progress: &Arc<OpProgress>,
    ) -> Result<String, ApiError> {
        let (vm, spec) = (&lent.record.plan, &lent.record.spec);
        let drivers = &self.shared.drivers;
        let commit = Commit {
            name,
            taken,
            disk: drivers.storage(vm)?.root_files(vm, spec),
            from: CommittedFrom {
                vm: lent.record.tag(),
                base: vm.boot.image.clone(),
                base_name: vm.boot.image_name.clone(),
            },
        };
        progress.stage(stage::CAPTURE_IMAGE);
        drivers.builds.commit(&commit, progress.clone()).await
    }
}
