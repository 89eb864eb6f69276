//! What the operations on a VM consist of, written in terms of lists and of the state machine.
//!
//! There is one teardown, [`Worker::tear_down`]: stop, kill, failed start, cancel, death of the VMM
//! and recovery all go through it.

use std::time::Duration;

use banger_api::operation::{OpEventKind, stage};
use banger_api::vm::{Lifetime, StartReport, StopKind, StoppedBecause, VmAction, VmState};
use banger_api::{ApiError, ErrorCode, Hint};

use crate::capabilities;
use crate::capability::VmContext;
use crate::lists::{self, ListName};
use crate::oplog::StepId;
use crate::plan::{RunPlan, VmPlan};
use crate::record::{Existence, Fate, Inspect, VmRecord};
use crate::runner::Worker;
use crate::state::VmEvent;
use crate::store::Durability;
use crate::undo;
use crate::view;

/// How often a guest that did not understand a shutdown is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whether a create goes on to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThenStart {
    /// It does.
    Yes,
    /// It does not.
    No,
}

pub(crate) fn event(record: &mut VmRecord, event: VmEvent) -> Result<Fate, ApiError> {
    let name = record.plan.name.clone();
    record.apply(event).map_err(|illegal| {
        ApiError::new(ErrorCode::Internal, format!("`{name}` cannot go on from its state"))
            .caused_by(&illegal)
    })
}

impl Worker {
    /// Makes what lasts; undone entirely, the VM with it, when it fails.
    ///
    /// # Errors
    /// The step's, with what could not be undone.
    pub async fn create(&mut self, then: ThenStart) -> Result<Fate, ApiError> {
        let steps = self.record.made.clone();
        if let Err((error, count)) = self.apply_steps(ListName::Create, &steps).await {
            return Err(self.unmake(count, error).await);
        }
        self.crash(ListName::Create, "commit", "before");
        let whole = |record: &mut VmRecord| {
            record.existence = Existence::Whole;
            Ok(())
        };
        if let Err(error) = self.decide(Durability::Power, whole).await {
            return Err(self.unmake(self.record.made.len(), error).await);
        }
        self.crash(ListName::Create, "commit", "after");
        match then {
            ThenStart::No => Ok(Fate::Lives),
            ThenStart::Yes => self.start().await,
        }
    }

    /// Undoes a create that did not get through.
    async fn unmake(&mut self, count: usize, error: ApiError) -> ApiError {
        self.stages.abandon();
        let steps: Vec<StepId> = self.record.made.iter().take(count).cloned().collect();
        let problems = self.undo_steps(ListName::Create, &steps).await;
        if !problems.is_empty() {
            return self.broken(problems, Some(error)).await;
        }
        match self.removed().await {
            Ok(_) => error,
            Err(illegal) => illegal,
        }
    }

    /// Boots the VM.
    ///
    /// # Errors
    /// Preflight's, or the failing step's; the VM is stopped then, or broken.
    pub async fn start(&mut self) -> Result<Fate, ApiError> {
        self.forget_exit();
        // What came before, the stop of a restart say, stands: only the start is cancelled.
        self.go_on()?;
        // The report is about the start alone, not about the create or stop before it.
        self.stages.finish();
        self.stages.take_done();
        let begun_ms = self.op.elapsed_ms();
        self.stages.enter(stage::PREFLIGHT);
        let vm = self.record.plan.clone();
        if let Err(error) = self.preflight(&vm).await {
            self.stages.abandon();
            return Err(self.start_refused(error).await);
        }
        self.end_stray().await?;
        let host_boot_id = self.shared.drivers.host.boot_id();
        let spec = self.record.spec.clone();
        let steps = lists::planned(ListName::Start, &vm, &spec);
        let run = RunPlan::new(self.op.id.clone(), host_boot_id, spec, steps.clone());
        self.crash(ListName::Start, "accept_commit", "before");
        let accepted = |record: &mut VmRecord| {
            event(record, VmEvent::StartAccepted)?;
            record.inspect = Inspect::No;
            record.run = Some(run);
            Ok(())
        };
        self.decide(Durability::Process, accepted).await?;
        self.crash(ListName::Start, "accept_commit", "after");
        if let Err((error, count)) = self.apply_steps(ListName::Start, &steps).await {
            return Err(self.start_failed(error, count).await);
        }
        self.warn_of_notices().await;
        self.crash(ListName::Start, "commit", "before");
        if let Err(error) = self.booted(begun_ms).await {
            return Err(self.start_failed(error, usize::MAX).await);
        }
        self.crash(ListName::Start, "commit", "after");
        Ok(Fate::Lives)
    }

    /// Checks what a start needs, changing nothing.
    async fn preflight(&self, vm: &VmPlan) -> Result<(), ApiError> {
        let drivers = &self.shared.drivers;
        undo::has_drivers(drivers, vm)?;
        drivers.vmm(vm)?.preflight(vm).await?;
        let spec = &self.record.spec;
        let used = capabilities::ALL.iter().filter(|one| one.is_used(vm, spec));
        for capability in used {
            let effects = drivers.effects.iter().find(|effects| effects.name == capability.name);
            if let Some(preflight) = effects.and_then(|effects| effects.preflight.as_ref()) {
                preflight.check(VmContext { vm, spec, run: None }).await?;
            }
        }
        Ok(())
    }

    /// Shows the notices of a run, a nearly full disk of the host say, as warnings of its start.
    async fn warn_of_notices(&self) {
        let Some(run) = &self.record.run else { return };
        for text in view::notices(&self.shared.drivers, &self.record.plan, run).await {
            self.op.emit(OpEventKind::Warning { text });
        }
    }

    /// The commit point of a start.
    async fn booted(&mut self, begun_ms: u64) -> Result<(), ApiError> {
        self.stages.enter(stage::READY);
        self.stages.finish();
        let guest = std::mem::take(&mut self.guest_timeline);
        let total_ms = self.op.elapsed_ms().saturating_sub(begun_ms);
        let stages = self.stages.take_done();
        let booted = |record: &mut VmRecord| {
            event(record, VmEvent::Booted)?;
            record.start = Some(StartReport { total_ms, stages, guest });
            Ok(())
        };
        self.decide(Durability::Process, booted).await
    }

    /// A start that was refused before it began leaves the VM as it was.
    async fn start_refused(&mut self, error: ApiError) -> ApiError {
        self.keep_for_inspection(&error);
        self.record.because = Some(StoppedBecause::StartFailed {
            operation: self.op.id.clone(),
            error: error.message.clone(),
        });
        self.save_anyway().await;
        error
    }

    /// A VM that is to stay is kept after a failed start, so that its user can inspect it. One that
    /// was cancelled, or goes with its session or its run, is not.
    fn keep_for_inspection(&mut self, error: &ApiError) {
        let stays = self.record.plan.lifetime == Lifetime::Keep;
        if stays && error.code != ErrorCode::Cancelled {
            self.record.inspect = Inspect::Yes;
        }
    }

    /// Keeps the logs of a VM that is deleted because its start failed, and says where they are.
    async fn keep_logs(&self, mut error: ApiError) -> ApiError {
        let plan = &self.record.plan;
        if plan.lifetime == Lifetime::Keep || error.code == ErrorCode::Cancelled {
            return error;
        }
        let Ok(vmm) = self.shared.drivers.vmm(plan) else { return error };
        let name = format!("{}-{}", plan.name, self.op.id);
        match self.shared.drivers.host.keep_logs(&name, &vmm.paths(plan)).await {
            Ok(Some(path)) => {
                let kept = format!("the logs of `{}` are kept in `{path}`", plan.name);
                error.hints.push(kept.into());
            }
            Ok(None) => {}
            Err(failed) => {
                tracing::warn!(vm = %plan.id, error = %failed, causes = ?failed.causes, "logs");
            }
        }
        error
    }

    async fn start_failed(&mut self, error: ApiError, count: usize) -> ApiError {
        self.stages.abandon();
        let because = StoppedBecause::StartFailed {
            operation: self.op.id.clone(),
            error: error.message.clone(),
        };
        self.keep_for_inspection(&error);
        match self.undo_run(count, because, Some(error.clone())).await {
            Ok(()) => self.keep_logs(error).await,
            Err(broken) => broken,
        }
    }

    /// Stops the VM: asks the guest, waits for the grace period, then ends the VMM.
    ///
    /// # Errors
    /// What could not be undone; the VM is broken then.
    pub async fn stop(&mut self, grace_ms: u64) -> Result<Fate, ApiError> {
        if self.state() == VmState::Stopped {
            return Ok(Fate::Lives);
        }
        if self.state() != VmState::Stopping {
            self.end_accepted(VmEvent::StopAccepted).await?;
        }
        let how = if grace_ms == 0 { StopKind::Killed } else { self.shut_down(grace_ms).await };
        tracing::info!(op = %self.op.id, vm = %self.record.plan.id, ?how, "stopped");
        self.tear_down(StoppedBecause::Asked { how }).await?;
        Ok(Fate::Lives)
    }

    /// The run is over, or is to be. Goes on when that cannot be written down: what it leads to is
    /// only undoing, and a VM must stop on a full disk too.
    pub(crate) async fn end_accepted(&mut self, why: VmEvent) -> Result<(), ApiError> {
        event(&mut self.record, why)?;
        self.crash(ListName::Start, "end_commit", "before");
        self.save_anyway().await;
        self.crash(ListName::Start, "end_commit", "after");
        Ok(())
    }

    /// Waits for the guest to go down by itself.
    async fn shut_down(&mut self, grace_ms: u64) -> StopKind {
        self.stages.enter(stage::SHUTDOWN);
        let guest = self.shared.drivers.guest.clone();
        let vm = self.record.plan.clone();
        let vmm = self.shared.drivers.vmm(&vm);
        let mut exit = self.exit.clone();
        let mut hurry = self.hurry.clone();
        let end = tokio::time::Instant::now() + Duration::from_millis(grace_ms);
        let ask = async {
            let left = || end.saturating_duration_since(tokio::time::Instant::now());
            while let Err(error) = guest.power_off(&vm, left()).await {
                tracing::warn!(vm = %vm.id, error = %error, "not reached, asking again");
                if let Ok(vmm) = &vmm
                    && let Some(button) = vmm.power_button()
                    && let Err(error) = button.press(&vm).await
                {
                    tracing::warn!(vm = %vm.id, error = %error, "the VMM did not ask it either");
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
            std::future::pending::<()>().await;
        };
        let how = tokio::select! {
            // The order matters only for a guest that ended: then nothing else counts.
            biased;
            Ok(_) = exit.wait_for(Option::is_some) => StopKind::Graceful,
            Ok(_) = hurry.wait_for(|hurry| *hurry) => StopKind::Killed,
            () = tokio::time::sleep(Duration::from_millis(grace_ms)) => StopKind::KilledAfterGrace,
            () = ask => StopKind::Killed,
        };
        if how == StopKind::KilledAfterGrace {
            let text = format!("the guest did not shut down within {grace_ms} ms and was killed");
            tracing::warn!(op = %self.op.id, vm = %self.record.plan.id, "{text}");
            self.op.emit(OpEventKind::Warning { text });
        }
        how
    }

    /// Undoes everything a start did.
    ///
    /// # Errors
    /// What could not be undone; the VM is broken then.
    pub async fn tear_down(&mut self, because: StoppedBecause) -> Result<(), ApiError> {
        self.stages.enter(stage::TEARDOWN);
        self.undo_run(usize::MAX, because, None).await
    }

    /// Steps of the run that may have been begun. A VM that is broken is undone wholly, also when
    /// it broke without having run.
    pub(crate) fn run_steps(&self) -> Vec<StepId> {
        match &self.record.run {
            Some(run) => run.steps.clone(),
            None => lists::all(ListName::Start).into_iter().map(|step| step.id).collect(),
        }
    }

    /// Undoes the first `count` steps of the run.
    async fn undo_run(
        &mut self,
        count: usize,
        because: StoppedBecause,
        first: Option<ApiError>,
    ) -> Result<(), ApiError> {
        let steps: Vec<StepId> = self.run_steps().into_iter().take(count).collect();
        let problems = self.undo_steps(ListName::Start, &steps).await;
        self.record.because = Some(because);
        if !problems.is_empty() {
            return Err(self.broken(problems, first).await);
        }
        event(&mut self.record, VmEvent::AllUndone)?;
        self.record.run = None;
        self.crash(ListName::Start, "undo_commit", "before");
        // What is true of the host stays true when it cannot be written down: the next daemon finds
        // an open run, undoes nothing that exists, and comes to the same end.
        self.save_anyway().await;
        self.crash(ListName::Start, "undo_commit", "after");
        self.stages.finish();
        Ok(())
    }

    /// Something could not be undone. Keeps that and, where undoing was not what was asked for,
    /// what went wrong first; returns both as one error.
    pub(crate) async fn broken(
        &mut self,
        undo_problems: Vec<String>,
        first: Option<ApiError>,
    ) -> ApiError {
        self.stages.abandon();
        let name = self.record.plan.name.clone();
        let text = format!("`{name}` is broken: not all could be undone");
        let mut problems = Vec::new();
        let mut error = match first {
            Some(mut first) => {
                problems.push(format!("{}: {}", self.op.kind, first.message));
                first.causes.push(text);
                first
            }
            None => ApiError::new(ErrorCode::Internal, text),
        };
        error.hints = vec![
            Hint::ask(&name, VmAction::Repair {}),
            Hint::ask(&name, VmAction::Delete { force: true }),
        ];
        error.causes.extend_from_slice(&undo_problems);
        problems.extend(undo_problems);
        if let Err(illegal) = event(&mut self.record, VmEvent::UndoFailed) {
            error.causes.push(illegal.message);
        }
        self.record.problems = problems;
        if let Err(unsaved) = self.save(Durability::Process).await {
            error.causes.push(unsaved.message);
        }
        error
    }

    /// Stops the VM if it runs, then starts it.
    ///
    /// # Errors
    /// Those of stop and start.
    pub async fn restart(&mut self, grace_ms: u64) -> Result<Fate, ApiError> {
        self.stop(grace_ms).await?;
        self.start().await
    }
}
