//! Carries out the decision of [`crate::recovery`] for one VM.

use banger_api::operation::OpEventKind;
use banger_api::vm::{StoppedBecause, VmState};
use banger_api::{ApiError, ErrorCode};

use crate::capability::VmContext;
use crate::lists::ListName;
use crate::oplog::StepId;
use crate::record::{Presence, Reset};
use crate::recovery::Action;
use crate::runner::Worker;

impl Worker {
    /// Carries out a recovery action.
    ///
    /// # Errors
    /// Those of a failed undo; the VM is broken then.
    pub async fn recover(&mut self, action: Action) -> Result<Presence, ApiError> {
        tracing::info!(vm = %self.record.plan.id, ?action, "recovery");
        match action {
            // The VM was marked as broken before its task was started.
            Action::Nothing | Action::MarkBroken(_) => Ok(Presence::Exists),
            Action::UnwindCreate => self.undo_create().await,
            Action::UnwindStart => {
                let operation = self
                    .record
                    .run
                    .as_ref()
                    .map_or_else(|| self.op.id.clone(), |run| run.operation.clone());
                let error = "the daemon ended during the start".into();
                self.tear_down(StoppedBecause::StartFailed { operation, error }).await?;
                Ok(Presence::Exists)
            }
            Action::Adopt { vmm_pid } => {
                if let Some(run) = &mut self.record.run {
                    run.vmm_pid = Some(vmm_pid);
                }
                self.watch_exit();
                self.match_vcpus().await;
                if self.state() == VmState::Running {
                    self.check_boot_id();
                }
                self.take_change_back().await;
                self.adopt_capabilities().await;
                Ok(Presence::Exists)
            }
            Action::EndRun(ending) => self.run_over(ending).await,
            Action::ResumeStop => {
                self.watch_exit();
                self.stop(self.stop_grace_left()).await
            }
            Action::FinishDelete => self.delete().await,
            Action::SettleReset => {
                match self.record.reset {
                    Some(Reset::Preparing) => self.discard_new_root().await?,
                    Some(Reset::Decided) => self.complete_reset().await?,
                    None => {}
                }
                Ok(Presence::Exists)
            }
        }
    }

    /// Takes back a live change that an earlier daemon left unfinished.
    async fn take_change_back(&mut self) {
        if self.record.run.as_ref().is_none_or(|run| run.change.is_none()) {
            return;
        }
        let name = self.record.plan.name.clone();
        let text = match self.take_back().await {
            Ok(()) => format!("the interrupted change of `{name}` was taken back"),
            Err(error) => {
                tracing::error!(vm = %name, error = %error, causes = ?error.causes, "change");
                error.message
            }
        };
        self.op.emit(OpEventKind::Warning { text });
    }

    /// Adopts the objects of capabilities, and creates missing ones again. A failure is only a
    /// warning, because the VM works without them.
    async fn adopt_capabilities(&mut self) {
        let drivers = self.shared.drivers.clone();
        for effects in &drivers.effects {
            let Some(run) = self.record.run.clone() else { return };
            let is_own = |id: &&StepId| effects.steps.iter().any(|(step, _)| step == *id);
            let steps: Vec<StepId> = run.steps.iter().filter(is_own).cloned().collect();
            let Some(adopt) = effects.adopt.as_ref().filter(|_| !steps.is_empty()) else {
                continue;
            };
            let vm = &self.record.plan;
            let context = VmContext { vm, spec: &run.spec, run: Some(&run), interrupt: None };
            if adopt.holds(context).await {
                continue;
            }
            let (vm, capability) = (vm.id.clone(), effects.name);
            match self.apply_again(&steps).await {
                Ok(()) => tracing::info!(%vm, capability, "capability restored for the running VM"),
                Err(error) => {
                    let causes = &error.causes;
                    tracing::error!(%vm, capability, error = %error, ?causes, "not restored");
                    let text = format!("`{capability}` could not be restored: {}", error.message);
                    self.op.emit(OpEventKind::Warning { text });
                }
            }
        }
    }

    /// Undoes steps of the run and applies them again.
    async fn apply_again(&mut self, steps: &[StepId]) -> Result<(), ApiError> {
        let problems = self.undo_steps(ListName::Start, steps).await;
        if !problems.is_empty() {
            let mut error = ApiError::new(ErrorCode::Internal, "the undo of its steps failed");
            error.causes = problems;
            return Err(error);
        }
        if let Err((error, count)) = self.apply_steps(ListName::Start, steps).await {
            let begun: Vec<StepId> = steps.iter().take(count).cloned().collect();
            self.undo_steps(ListName::Start, &begun).await;
            return Err(error);
        }
        Ok(())
    }

    /// Logs whether the boot id of the guest is the recorded one. Recovery does not wait for the
    /// answer, which may never arrive.
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
                    tracing::warn!(vm = %vm.id, boot_id, ?known, "the guest has another boot id");
                }
                Err(error) => {
                    tracing::warn!(vm = %vm.id, error = %error, "the agent does not answer");
                }
            }
        });
    }
}
