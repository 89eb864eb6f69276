//! Carries out what [`crate::recovery`] decided for one VM.

use banger_api::ApiError;
use banger_api::vm::{DEFAULT_GRACE_MS, StoppedBecause};

use crate::lists::CREATE;
use crate::record::Fate;
use crate::recovery::Action;
use crate::runner::{ListName, Worker};
use crate::state::VmEvent;
use crate::store::Durability;

impl Worker {
    /// Carries out a recovery action.
    ///
    /// # Errors
    /// What could not be undone; the VM is broken then.
    pub async fn recover(&mut self, action: Action) -> Result<Fate, ApiError> {
        tracing::info!(vm = %self.record.plan.id, ?action, "recovery");
        match action {
            Action::Nothing => Ok(Fate::Lives),
            Action::UnwindCreate => {
                let problems = self.undo_list(CREATE, CREATE.len(), ListName::Create).await;
                self.end_removal(problems).await
            }
            Action::UnwindStart => {
                let operation = self
                    .record
                    .run
                    .as_ref()
                    .map_or_else(|| self.op.id.clone(), |run| run.operation.clone());
                let error = "the daemon ended while it was starting".into();
                self.tear_down(StoppedBecause::StartFailed { operation, error }).await?;
                Ok(Fate::Lives)
            }
            Action::Adopt { vmm_pid } => {
                if let Some(run) = &mut self.record.run {
                    run.vmm_pid = Some(vmm_pid);
                }
                self.watch_exit();
                self.check_boot_id().await;
                Ok(Fate::Lives)
            }
            Action::EndRun(ending) => {
                if self.state() != banger_api::vm::VmState::Stopping {
                    self.event(VmEvent::Exited)?;
                    self.save(Durability::Process).await?;
                }
                self.end_run(ending).await
            }
            Action::ResumeStop => {
                self.watch_exit();
                self.stop(DEFAULT_GRACE_MS).await
            }
            Action::FinishDelete => self.delete().await,
            Action::MarkBroken(problem) => {
                self.event(VmEvent::Distrusted)?;
                self.record.problems =
                    vec![format!("its operation log is not possible: {problem}")];
                self.save(Durability::Process).await?;
                Ok(Fate::Lives)
            }
        }
    }

    /// Says so in the log when the guest that answers is not the one that was left.
    async fn check_boot_id(&self) {
        let vm = &self.record.plan;
        let known = self.record.run.as_ref().and_then(|run| run.boot_id.as_deref());
        match self.shared.drivers.guest.health(vm).await {
            Ok(health) if Some(health.boot_id.as_str()) == known => {
                tracing::info!(vm = %vm.id, boot_id = health.boot_id, "adopted");
            }
            Ok(health) => {
                tracing::warn!(vm = %vm.id, boot_id = health.boot_id, ?known, "another boot answers");
            }
            Err(error) => {
                tracing::warn!(vm = %vm.id, error = %error, "adopted, but the agent is lost");
            }
        }
    }
}
