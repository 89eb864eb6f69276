//! Reset: a stopped VM gets a fresh root disk from its image.
//!
//! ```text
//! begin         `Reset::Preparing` is on record
//! new_root      the new root disk is created beside the old one
//! commit        `Reset::Decided` and a new machine id are on record
//! replace_root  the new disk takes the place of the old one
//! identity      the SSH host key is created anew
//! end           there is no reset on record any more
//! ```
//!
//! A failure before the commit removes the new disk. After it, the reset is completed: by this
//! operation, by the next daemon, or by the next start. At every moment there is a root disk, the
//! old one or the new one.

use banger_api::hint::Kind;
use banger_api::operation::stage;
use banger_api::{ApiError, ErrorCode, Hint};

use crate::capabilities::ssh_identity;
use crate::create::new_machine_id;
use crate::lists::{ListName, NEW_ROOT, REPLACE_ROOT};
use crate::oplog::StepId;
use crate::record::{Presence, Reset, VmRecord};
use crate::runner::Worker;
use crate::store::Durability;
use crate::undo;

/// Steps of a create whose objects belong to the system on the root disk: a reset undoes them and
/// applies them again.
const RENEWED: [StepId; 1] = [ssh_identity::IDENTITY];

impl Worker {
    /// Replaces the root disk of a stopped VM by a fresh one.
    ///
    /// # Errors
    /// The image does not exist, or the new disk cannot be created: the old one stays. An error
    /// after the commit says that the reset is not complete.
    pub async fn reset(&mut self) -> Result<Presence, ApiError> {
        self.forget_exit();
        undo::has_drivers(&self.shared.drivers, &self.record.plan)?;
        self.end_stray().await?;
        if self.record.reset == Some(Reset::Decided) {
            // Nothing has used the disk of the earlier reset, which was not completed.
            self.complete_reset().await?;
            return Ok(Presence::Exists);
        }
        self.check_image().await?;
        let begin = |record: &mut VmRecord| {
            record.reset = Some(Reset::Preparing);
            Ok(())
        };
        self.crash(ListName::Reset, "begin", "before");
        self.decide(Durability::Process, begin).await?;
        self.crash(ListName::Reset, "begin", "after");
        if let Err((error, _)) = self.apply_steps(ListName::Reset, &[NEW_ROOT]).await {
            return Err(self.abandon_reset(error).await);
        }
        let machine_id = new_machine_id(&*self.shared.drivers.host);
        let decided = |record: &mut VmRecord| {
            record.reset = Some(Reset::Decided);
            record.plan.machine_id = machine_id;
            Ok(())
        };
        self.crash(ListName::Reset, "commit", "before");
        // The old disk is removed after this, so it must survive a power loss.
        if let Err(error) = self.decide(Durability::Power, decided).await {
            return Err(self.abandon_reset(error).await);
        }
        self.crash(ListName::Reset, "commit", "after");
        self.complete_reset().await?;
        Ok(Presence::Exists)
    }

    /// VMs keep their image from being deleted, but its files can be lost.
    async fn check_image(&self) -> Result<(), ApiError> {
        let (name, boot) = (&self.record.plan.name, &self.record.plan.boot);
        let images = self.shared.drivers.images.images().await?;
        if images.iter().any(|image| image.id == boot.image) {
            return Ok(());
        }
        let (image, id) = (&boot.image_name, &boot.image);
        let text = format!("cannot reset `{name}`: its image `{image}` ({id}) does not exist");
        let error = ApiError::new(ErrorCode::WrongState, text);
        Err(error.with_hint(Hint::List { what: Kind::Image }))
    }

    /// Removes the new disk after a failure before the commit.
    async fn abandon_reset(&mut self, mut error: ApiError) -> ApiError {
        self.stages.abandon();
        match self.discard_new_root().await {
            Ok(()) => error.causes.push("the root disk is as it was".into()),
            Err(failed) => error.also(failed),
        }
        error
    }

    /// Removes the new disk of a reset without a commit.
    ///
    /// # Errors
    /// It cannot be removed. It stays on record; a later reset, daemon or delete tries again.
    pub(crate) async fn discard_new_root(&mut self) -> Result<(), ApiError> {
        let problems = self.undo_steps(ListName::Reset, &[NEW_ROOT]).await;
        if !problems.is_empty() {
            let name = &self.record.plan.name;
            let text = format!("the unfinished new root disk of `{name}` could not be removed");
            let mut error = ApiError::new(ErrorCode::Internal, text);
            error.causes = problems;
            return Err(error);
        }
        self.record.reset = None;
        self.crash(ListName::Reset, "discarded", "before");
        self.save_best_effort().await;
        self.crash(ListName::Reset, "discarded", "after");
        Ok(())
    }

    /// Completes a reset whose commit is on record.
    ///
    /// # Errors
    /// A step failed; the reset stays on record.
    pub(crate) async fn complete_reset(&mut self) -> Result<(), ApiError> {
        self.stages.enter(stage::PREPARE_DISKS);
        if let Err(error) = self.replace_and_renew().await {
            self.stages.abandon();
            let name = &self.record.plan.name;
            let text =
                format!("the reset of `{name}` is not complete: its next start completes it");
            let mut failed = ApiError::new(error.code, text);
            failed.causes = [vec![error.message], error.causes].concat();
            failed.hints = error.hints;
            return Err(failed);
        }
        self.record.reset = None;
        self.crash(ListName::Reset, "end_commit", "before");
        // If the store fails, the next daemon repeats the steps, which changes no disk.
        self.save_best_effort().await;
        self.crash(ListName::Reset, "end_commit", "after");
        self.stages.finish();
        Ok(())
    }

    async fn replace_and_renew(&mut self) -> Result<(), ApiError> {
        let replaced = self.apply_steps(ListName::Reset, &[REPLACE_ROOT]).await;
        replaced.map_err(|(error, _)| error)?;
        let made = |step: &StepId| self.record.made.contains(step);
        let renewed: Vec<StepId> = RENEWED.into_iter().filter(made).collect();
        let problems = self.undo_steps(ListName::Create, &renewed).await;
        if !problems.is_empty() {
            let mut error = ApiError::new(ErrorCode::Internal, "not all could be removed");
            error.causes = problems;
            return Err(error);
        }
        self.apply_steps(ListName::Create, &renewed).await.map_err(|(error, _)| error)
    }
}
