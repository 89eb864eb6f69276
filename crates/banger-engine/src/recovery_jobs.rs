//! Carries out what [`crate::recovery`] decided for one VM.

use banger_api::ApiError;
use banger_api::vm::{DEFAULT_GRACE_MS, StoppedBecause};

use crate::oplog::StepId;
use crate::record::{Fate, VmRecord};
use crate::recovery::Action;
use crate::runner::Worker;
use crate::store::Durability;

impl Worker {
    /// Carries out a recovery action.
    ///
    /// # Errors
    /// What could not be undone; the VM is broken then.
    pub async fn recover(&mut self, action: Action) -> Result<Fate, ApiError> {
        tracing::info!(vm = %self.record.plan.id, ?action, "recovery");
        match action {
            // What is distrusted was marked before this VM had an owner.
            Action::Nothing | Action::MarkBroken(_) => Ok(Fate::Lives),
            Action::UnwindCreate => self.undo_create().await,
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
                self.check_boot_id();
                self.publish_again().await;
                Ok(Fate::Lives)
            }
            Action::EndRun(ending) => self.run_over(ending).await,
            Action::ResumeStop => {
                self.watch_exit();
                self.stop(DEFAULT_GRACE_MS).await
            }
            Action::FinishDelete => self.delete().await,
        }
    }

    /// Forwards the published ports again where what did so is gone. A VM without them is better
    /// than no VM, so a failure is only told.
    async fn publish_again(&mut self) {
        let vm = self.record.plan.clone();
        let Some(run) = self.record.run.clone() else { return };
        let Ok(network) = self.shared.drivers.network(&vm) else { return };
        if network.publishes(&vm, &run).await {
            return;
        }
        let again = async {
            network.unpublish(&vm, &run).await?;
            let forwarder = network.forwarder(&vm, &run).await?;
            // On record before its gate opens, as in a start.
            let known = |record: &mut VmRecord| {
                if let Some(run) = &mut record.run {
                    let found = serde_json::to_value(forwarder).unwrap_or_default();
                    run.found.insert(StepId::new("forwarder"), found);
                }
                Ok(())
            };
            self.decide(Durability::Process, known).await?;
            network.publish(&vm, &run).await
        };
        match again.await {
            Ok(_) => tracing::info!(vm = %vm.id, "its ports are published again"),
            Err(error) => {
                let causes = &error.causes;
                tracing::error!(vm = %vm.id, error = %error, ?causes, "its ports are lost");
            }
        }
    }

    /// Logs whether the guest that answers is the one that was left. Recovery does not wait for a
    /// guest, which may never answer.
    fn check_boot_id(&self) {
        let vm = self.record.plan.clone();
        let known = self.record.run.as_ref().and_then(|run| run.boot_id.clone());
        let guest = self.shared.drivers.guest.clone();
        tokio::spawn(async move {
            match guest.health(&vm).await {
                Ok(health) if Some(&health.boot_id) == known.as_ref() => {
                    tracing::info!(vm = %vm.id, boot_id = health.boot_id, "adopted");
                }
                Ok(health) => {
                    let boot_id = health.boot_id;
                    tracing::warn!(vm = %vm.id, boot_id, ?known, "another boot answers");
                }
                Err(error) => {
                    tracing::warn!(vm = %vm.id, error = %error, "adopted, but the agent is lost");
                }
            }
        });
    }
}
