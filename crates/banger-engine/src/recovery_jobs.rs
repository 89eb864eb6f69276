//! Carries out what [`crate::recovery`] decided for one VM.

use banger_api::operation::OpEventKind;
use banger_api::vm::{DEFAULT_GRACE_MS, StoppedBecause};
use banger_api::{ApiError, ErrorCode};

use crate::capability::VmContext;
use crate::lists::ListName;
use crate::oplog::StepId;
use crate::record::Fate;
use crate::recovery::Action;
use crate::runner::Worker;

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
                self.adopt_capabilities().await;
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

    /// Takes over what capabilities made for this run, and makes it again where it is gone. A VM
    /// without it is better than no VM, so a failure is only reported.
    async fn adopt_capabilities(&mut self) {
        let drivers = self.shared.drivers.clone();
        for effects in &drivers.effects {
            let Some(run) = self.record.run.clone() else { return };
            let ours = |id: &&StepId| effects.steps.iter().any(|(step, _)| step == *id);
            let steps: Vec<StepId> = run.steps.iter().filter(ours).cloned().collect();
            let Some(adopt) = effects.adopt.as_ref().filter(|_| !steps.is_empty()) else {
                continue;
            };
            let vm = &self.record.plan;
            let context = VmContext { vm, spec: &run.spec, run: Some(&run) };
            if adopt.holds(context).await {
                continue;
            }
            let (vm, capability) = (vm.id.clone(), effects.name);
            match self.apply_again(&steps).await {
                Ok(()) => tracing::info!(%vm, capability, "made again for the running VM"),
                Err(error) => {
                    let causes = &error.causes;
                    tracing::error!(%vm, capability, error = %error, ?causes, "lost");
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
            let mut error = ApiError::new(ErrorCode::Internal, "not all of it could be undone");
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
