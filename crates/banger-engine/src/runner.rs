//! Applies and undoes lists of steps, with a write-ahead log.
//!
//! For each step `Started` is committed before its apply, its outcome after; the outcome of one
//! step and the intent of the next share a commit. If a step fails, all begun steps are undone in
//! reverse order, including the failed one. Undo continues after errors and without a writable log.
//! Writes that failed are repeated with the next commit.

use std::sync::Arc;
use std::time::Duration;

use banger_api::handover::HandedOver;
use banger_api::vm::{Timing, VmState};
use banger_api::{ApiError, ErrorCode};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::drivers::ExitStory;
use crate::interrupt::{Interrupt, Reason};
use crate::lists::{self, Fact, ListName, StepContext};
use crate::oplog::{self, StepEvent, StepEventKind, StepId};
use crate::ops::{Op, Stages};
use crate::record::VmRecord;
use crate::shared::{Published, Shared};
use crate::store::{Durability, Write};
use crate::undo::{self, Foreign};

/// Maximum delay between a guest's connection loss and the report that its VMM has ended.
const EXIT_REPORT_DELAY: Duration = Duration::from_millis(300);

/// Does the work of one operation on one VM. Owns the record while it does.
pub struct Worker {
    /// State shared by all operations.
    pub shared: Arc<Shared>,
    /// The operation.
    pub op: Arc<Op>,
    /// Its stages.
    pub stages: Stages,
    /// The VM.
    pub record: VmRecord,
    /// Publishes the record.
    pub publisher: watch::Sender<Published>,
    /// Set when a kill ends the grace period of a stop.
    pub hurry: watch::Receiver<bool>,
    /// Set when the VMM ends.
    pub exit: watch::Receiver<Option<ExitStory>>,
    /// Stages of this start as reported by the guest.
    pub guest_timeline: Vec<Timing>,
    /// Files of the host that the guest received in this start.
    pub handed_over: Vec<HandedOver>,
    /// Handling of steps of another build.
    pub foreign: Foreign,
    log: Vec<StepEvent>,
    pending: Vec<Write>,
}

/// Channels that interrupt the waits of a worker.
pub struct Signals {
    /// See [`Worker::hurry`].
    pub hurry: watch::Receiver<bool>,
    /// See [`Worker::exit`].
    pub exit: watch::Receiver<Option<ExitStory>>,
}

impl Worker {
    /// A worker for a new operation. `unsaved` is written with its first commit.
    pub fn new(
        shared: Arc<Shared>,
        op: Arc<Op>,
        record: VmRecord,
        publisher: watch::Sender<Published>,
        signals: Signals,
        unsaved: Vec<Write>,
    ) -> Self {
        let stages = Stages::new(op.clone());
        let Signals { hurry, exit } = signals;
        Self {
            shared,
            op,
            stages,
            record,
            publisher,
            hurry,
            exit,
            guest_timeline: Vec::new(),
            handed_over: Vec::new(),
            foreign: Foreign::Keep,
            log: Vec::new(),
            pending: unsaved,
        }
    }

    /// Changes the record only if the change can be committed; otherwise the record stays as it
    /// was.
    ///
    /// # Errors
    /// Those of `decision`, or of the store.
    pub async fn decide(
        &mut self,
        durability: Durability,
        decision: impl FnOnce(&mut VmRecord) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let before = self.record.clone();
        let written = match decision(&mut self.record) {
            Ok(()) => {
                self.record.generation += 1;
                self.pending.push(Write::PutVm(Box::new(self.record.clone())));
                let written = self.flush(durability).await;
                if written.is_err() {
                    self.pending.pop();
                }
                written
            }
            illegal => illegal,
        };
        match written {
            Ok(()) => self.publish(),
            Err(_) => self.record = before,
        }
        written
    }

    /// Commits the record with the pending writes, and publishes it.
    ///
    /// # Errors
    /// Those of the store; the record is published anyway, because it describes the host, and is
    /// written with the next commit. If there is none, the next daemon's recovery corrects it.
    pub async fn save(&mut self, durability: Durability) -> Result<(), ApiError> {
        self.record.generation += 1;
        self.pending.push(Write::PutVm(Box::new(self.record.clone())));
        let written = self.flush(durability).await;
        self.publish();
        written
    }

    /// As [`Self::save`]; an error of the store is only logged.
    pub async fn save_best_effort(&mut self) {
        if let Err(error) = self.save(Durability::Process).await {
            tracing::error!(op = %self.op.id, error = %error, causes = ?error.causes, "store");
        }
    }

    fn publish(&self) {
        let record = Arc::new(self.record.clone());
        self.publisher.send_modify(|published| published.record = record);
        self.shared.changed();
    }

    /// Adds a change to the next commit.
    pub fn write(&mut self, write: Write) {
        self.pending.push(write);
    }

    /// Commits the pending writes.
    ///
    /// # Errors
    /// Those of the store; the writes stay pending.
    pub async fn flush(&mut self, durability: Durability) -> Result<(), ApiError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.shared.store.commit(self.pending.clone(), durability).await?;
        self.pending.clear();
        Ok(())
    }

    pub(crate) fn note(
        &mut self,
        step: &StepId,
        kind: StepEventKind,
        detail: String,
    ) -> Result<(), ApiError> {
        oplog::check(&self.log, step, kind).map_err(|illegal| {
            ApiError::new(ErrorCode::Internal, "an operation's log would become illegal")
                .caused_by(&illegal)
        })?;
        let at_unix_ms = self.shared.drivers.host.now_unix_ms();
        let event = StepEvent { step: step.clone(), kind, detail, at_unix_ms };
        self.log.push(event.clone());
        self.pending.push(Write::Log(self.op.id.clone(), event));
        Ok(())
    }

    pub(crate) fn context(&self, step: &StepId) -> StepContext {
        StepContext {
            step: step.clone(),
            drivers: self.shared.drivers.clone(),
            vm: self.record.plan.clone(),
            spec: self.record.spec_in_force().clone(),
            run: self.record.run.clone(),
            interrupt: self.interrupt(),
        }
    }

    pub(crate) fn interrupt(&self) -> Interrupt {
        Interrupt::new(self.op.cancelled(), self.exit.clone())
    }

    /// Reaches a crash point.
    pub fn crash(&self, list: ListName, place: &str, when: &str) {
        (self.shared.drivers.crash)(&format!("{}.{place}.{when}", list.as_str()));
    }

    /// Applies these steps in order. The outcome of the last one is written with the next commit.
    ///
    /// # Errors
    /// The error, and the number of steps that have begun and must be undone.
    pub async fn apply_steps(
        &mut self,
        name: ListName,
        steps: &[StepId],
    ) -> Result<(), (ApiError, usize)> {
        for (place, id) in steps.iter().enumerate() {
            let step = lists::find(name, id).ok_or_else(|| (undo::foreign(), place))?;
            self.check_interrupt().map_err(|error| (error, place))?;
            self.stages.enter(step.stage);
            // If this fails, the step has not begun; the steps before it must be undone.
            self.record_intent(&step.id).await.map_err(|error| (error, place))?;
            self.crash(name, step.id.as_str(), "before");
            let context = self.context(&step.id);
            match (step.apply)(&context).await {
                Ok(fact) => {
                    self.crash(name, step.id.as_str(), "applied");
                    self.remember(&step.id, fact).map_err(|error| (error, place + 1))?;
                }
                Err(error) => {
                    let error = self.failure_cause(&context.interrupt, error).await;
                    let detail = error.message.clone();
                    if let Err(unwritten) = self.note(&step.id, StepEventKind::Failed, detail) {
                        tracing::error!(op = %self.op.id, error = %unwritten, "log");
                    }
                    return Err((error, place + 1));
                }
            }
        }
        Ok(())
    }

    /// The cause of a step's failure: an interruption takes precedence over its consequences.
    ///
    /// A guest whose VMM dies closes its connections shortly before the end of the VMM is reported,
    /// so this waits up to [`EXIT_REPORT_DELAY`] for the report.
    async fn failure_cause(&self, interrupt: &Interrupt, error: ApiError) -> ApiError {
        let reason = match error.code {
            ErrorCode::GuestFailed => timeout(EXIT_REPORT_DELAY, interrupt.raised()).await.ok(),
            _ => interrupt.now(),
        };
        reason.map_or(error, |reason| self.interrupted(&reason))
    }

    /// Commits that a step is about to be applied.
    async fn record_intent(&mut self, step: &StepId) -> Result<(), ApiError> {
        self.note(step, StepEventKind::Started, String::new())?;
        let begun = self.flush(Durability::Process).await;
        if begun.is_err() {
            self.log.pop();
            self.pending.pop();
        }
        begun
    }

    /// Logs the success of a step and stores its result.
    fn remember(&mut self, step: &StepId, fact: Fact) -> Result<(), ApiError> {
        let (mut detail, mut changed) = (String::new(), true);
        let launched = matches!(fact, Fact::Vmm(_));
        match (&fact, &mut self.record.run) {
            (Fact::Found(applied, found), Some(run)) => {
                detail = format!("{applied:?}");
                run.found.insert(step.clone(), found.clone());
            }
            (Fact::Shim(shim), Some(run)) => run.shim = Some(*shim),
            (Fact::Vmm(pid), Some(run)) => run.vmm_pid = Some(*pid),
            (Fact::BootId(boot_id), Some(run)) => run.boot_id = Some(boot_id.clone()),
            (Fact::None(applied) | Fact::Warned(applied, _), _) => {
                detail = format!("{applied:?}");
                changed = false;
            }
            (Fact::Network(attached), Some(run)) => {
                detail = format!("{:?}", attached.applied);
                run.lease = attached.lease.clone();
            }
            (Fact::Ready(_), _) => changed = false,
            (_, None) => {
                return Err(ApiError::new(
                    ErrorCode::Internal,
                    "step result without an active run",
                ));
            }
        }
        let warnings = match fact {
            Fact::Ready(ready) => {
                self.guest_timeline = ready.timeline;
                self.handed_over = ready.handed_over;
                ready.warnings
            }
            Fact::Warned(_, warnings) => warnings,
            _ => Vec::new(),
        };
        for text in warnings {
            self.op.emit(banger_api::operation::OpEventKind::Warning { text });
        }
        self.note(step, StepEventKind::Succeeded, detail)?;
        if changed {
            self.record.generation += 1;
            self.pending.push(Write::PutVm(Box::new(self.record.clone())));
            self.publish();
            if launched {
                self.watch_exit();
            }
        }
        Ok(())
    }

    /// Watches the VMM: its end interrupts waits and is reported to the VM's task.
    pub fn watch_exit(&mut self) {
        let (sender, receiver) = watch::channel(None);
        self.exit = receiver;
        let Some(run) = self.record.run.clone() else { return };
        let vm = self.record.plan.clone();
        let Ok(vmm) = self.shared.drivers.vmm(&vm) else { return };
        tokio::spawn(async move {
            // All receivers are dropped when the run is torn down on request.
            let closed = sender.clone();
            tokio::select! {
                story = vmm.exited(&vm, &run) => { sender.send_replace(Some(story)); }
                () = closed.closed() => {}
            }
        });
    }

    /// Resets the exit channel before a new run.
    pub fn forget_exit(&mut self) {
        self.exit = watch::channel(None).1;
    }

    /// Checks whether the operation was interrupted.
    ///
    /// # Errors
    /// Cancelled, or the VMM has ended.
    pub fn check_interrupt(&self) -> Result<(), ApiError> {
        match self.interrupt().now() {
            Some(reason) => Err(self.interrupted(&reason)),
            None => Ok(()),
        }
    }

    fn interrupted(&self, reason: &Reason) -> ApiError {
        let name = &self.record.plan.name;
        match reason {
            Reason::Cancelled => ApiError::new(
                ErrorCode::Cancelled,
                format!("{} of `{name}` was cancelled", self.op.kind),
            ),
            Reason::VmmExited(story) => {
                let mut error = ApiError::new(
                    ErrorCode::VmmDied,
                    format!("the VMM of `{name}` ended before the guest was ready"),
                );
                error.causes.push(story.summary());
                error.causes.extend(story.tail().lines().map(|line| format!("  {line}")));
                error
            }
        }
    }

    /// The present state of the VM.
    pub fn state(&self) -> VmState {
        self.record.state
    }
}
