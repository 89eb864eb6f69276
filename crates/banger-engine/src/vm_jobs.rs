//! Create, start, stop and restart of a VM, in terms of the lists of steps and the state machine.
//!
//! There is one teardown, [`Worker::tear_down`]: stop, kill, failed start, cancel, death of the VMM
//! and recovery all use it.

use banger_api::operation::{OpEventKind, stage};
use banger_api::vm::{Lifetime, StartReport, StoppedBecause, VmAction};
use banger_api::{ApiError, ErrorCode, Hint};

use crate::capabilities;
use crate::capability::VmContext;
use crate::lists::{self, ListName};
use crate::oplog::StepId;
use crate::plan::{RunPlan, VmPlan};
use crate::record::{Existence, Inspect, Presence, Reset, VmRecord, Wanted};
use crate::runner::Worker;
use crate::state::VmEvent;
use crate::store::Durability;
use crate::undo;
use crate::view;

/// Whether a create also starts the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThenStart {
    /// It starts the VM.
    Yes,
    /// It leaves the VM stopped.
    No,
}

pub(crate) fn event(record: &mut VmRecord, event: VmEvent) -> Result<Presence, ApiError> {
    let name = record.plan.name.clone();
    record.apply(event).map_err(|illegal| {
        ApiError::new(ErrorCode::Internal, format!("`{name}` is in an unexpected state"))
            .caused_by(&illegal)
    })
}

impl Worker {
    /// Applies the create list, then starts the VM if requested. A failed create is undone, and no
    /// VM is left.
    ///
    /// # Errors
    /// That of the failed step, with those of a failed undo.
    pub async fn create(&mut self, then: ThenStart) -> Result<Presence, ApiError> {
        let steps = self.record.made.clone();
        if let Err((error, count)) = self.apply_steps(ListName::Create, &steps).await {
            return Err(self.roll_back_create(count, error).await);
        }
        self.crash(ListName::Create, "commit", "before");
        let whole = |record: &mut VmRecord| {
            record.existence = Existence::Created;
            Ok(())
        };
        if let Err(error) = self.decide(Durability::Power, whole).await {
            return Err(self.roll_back_create(self.record.made.len(), error).await);
        }
        self.crash(ListName::Create, "commit", "after");
        match then {
            ThenStart::No => Ok(Presence::Exists),
            ThenStart::Yes => self.start().await,
        }
    }

    /// Undoes the first `count` steps of a failed create.
    async fn roll_back_create(&mut self, count: usize, error: ApiError) -> ApiError {
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
    /// That of a preflight check or of the failed step; the VM is stopped or broken then.
    pub async fn start(&mut self) -> Result<Presence, ApiError> {
        self.forget_exit();
        // Only the start is cancelled, not earlier work such as the stop of a restart.
        if let Err(cancelled) = self.check_interrupt() {
            self.record.want(Wanted::Stopped);
            self.save_best_effort().await;
            return Err(cancelled);
        }
        // The report covers the start only, not the create or stop before it.
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
        if self.record.reset == Some(Reset::Decided) {
            self.complete_reset().await?;
        }
        let host_boot_id = self.shared.drivers.host.boot_id();
        let spec = self.record.spec.clone();
        let steps = lists::planned(ListName::Start, &vm, &spec);
        let mut run = RunPlan::new(self.op.id.clone(), host_boot_id, spec, steps.clone());
        let first = self.record.because == Some(StoppedBecause::NeverStarted);
        run.attach = first && vm.program.as_ref().is_some_and(|program| program.attach);
        self.crash(ListName::Start, "accept_commit", "before");
        let accepted = |record: &mut VmRecord| {
            event(record, VmEvent::StartAccepted)?;
            record.inspect = Inspect::No;
            record.exit_code = None;
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
        Ok(Presence::Exists)
    }

    /// Checks the requirements of a start without changes.
    async fn preflight(&self, vm: &VmPlan) -> Result<(), ApiError> {
        let drivers = &self.shared.drivers;
        undo::has_drivers(drivers, vm)?;
        drivers.vmm(vm)?.preflight(vm).await?;
        let spec = &self.record.spec;
        let used = capabilities::ALL.iter().filter(|one| one.is_used(vm, spec));
        for capability in used {
            let effects = drivers.effects.iter().find(|effects| effects.name == capability.name);
            if let Some(preflight) = effects.and_then(|effects| effects.preflight.as_ref()) {
                preflight.check(VmContext { vm, spec, run: None, interrupt: None }).await?;
            }
        }
        Ok(())
    }

    /// Emits the notices of a run, such as a nearly full disk of the host, as warnings.
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
        let handed_over = std::mem::take(&mut self.handed_over);
        let total_ms = self.op.elapsed_ms().saturating_sub(begun_ms);
        let stages = self.stages.take_done();
        let booted = |record: &mut VmRecord| {
            event(record, VmEvent::Booted)?;
            record.autostart_failures = 0;
            record.start = Some(StartReport { total_ms, stages, guest, handed_over });
            Ok(())
        };
        self.decide(Durability::Process, booted).await
    }

    /// A start that failed in preflight leaves the VM as it was.
    async fn start_refused(&mut self, error: ApiError) -> ApiError {
        self.keep_for_inspection(&error);
        self.record.because = Some(StoppedBecause::StartFailed {
            operation: self.op.id.clone(),
            error: error.message.clone(),
        });
        self.save_best_effort().await;
        error
    }

    /// Keeps a permanent VM after a failed start, so that its user can inspect it.
    fn keep_for_inspection(&mut self, error: &ApiError) {
        let permanent = self.record.plan.lifetime == Lifetime::Keep;
        if permanent && error.code != ErrorCode::Cancelled {
            self.record.inspect = Inspect::Yes;
        }
    }

    /// Copies the logs of a VM that will be deleted because its start failed, and adds their path
    /// as a hint.
    async fn keep_logs(&self, mut error: ApiError) -> ApiError {
        let plan = &self.record.plan;
        if plan.lifetime == Lifetime::Keep || error.code == ErrorCode::Cancelled {
            return error;
        }
        let Ok(vmm) = self.shared.drivers.vmm(plan) else { return error };
        let name = format!("{}-{}", plan.name, self.op.id);
        match self.shared.drivers.host.keep_logs(&name, &vmm.paths(plan)).await {
            Ok(Some(path)) => {
                let vm = plan.name.to_string();
                error.hints.push(Hint::ReadKeptLogs { vm, path });
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
        if error.code == ErrorCode::Cancelled {
            self.record.want(Wanted::Stopped);
        }
        match self.undo_run(count, because, Some(error.clone())).await {
            Ok(()) => self.keep_logs(error).await,
            Err(broken) => broken,
        }
    }

    /// Records that a teardown starts. Continues if the store fails: a teardown only undoes steps,
    /// and a VM must also stop on a full disk.
    pub(crate) async fn begin_teardown(&mut self, why: VmEvent) -> Result<(), ApiError> {
        event(&mut self.record, why)?;
        self.crash(ListName::Start, "end_commit", "before");
        self.save_best_effort().await;
        self.crash(ListName::Start, "end_commit", "after");
        Ok(())
    }

    /// Undoes all steps of the run.
    ///
    /// # Errors
    /// Those of a failed undo; the VM is broken then.
    pub async fn tear_down(&mut self, because: StoppedBecause) -> Result<(), ApiError> {
        self.stages.enter(stage::TEARDOWN);
        self.undo_run(usize::MAX, because, None).await
    }

    /// Steps of the run. For a broken VM without a run on record, all steps of a start.
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
        // If the store fails, the next daemon finds an open run, undoes it again without effect,
        // and records the same state.
        self.save_best_effort().await;
        self.crash(ListName::Start, "undo_commit", "after");
        self.stages.finish();
        Ok(())
    }

    /// Makes the VM broken after a failed undo. Records and returns the errors of the undo and, if
    /// the undo followed a failure, that first error.
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
    pub async fn restart(&mut self, grace_ms: u64) -> Result<Presence, ApiError> {
        self.stop(grace_ms).await?;
        self.start().await
    }
}
