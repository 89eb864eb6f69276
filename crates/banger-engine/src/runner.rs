//! Carries out a list of steps and takes it back, writing before acting.
//!
//! For each step `Started` is committed before its apply, its outcome after; the outcome of one
//! step and the intention of the next share a commit. When a step fails, everything that may exist
//! is undone in reverse, the failed step included. Undoing goes on past errors and where the log
//! cannot be written. What could not be written goes with the next commit.

use std::sync::Arc;
use std::time::Duration;

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

/// How long the news of a VMM's end may lag behind the silence of its guest.
const NEWS: Duration = Duration::from_millis(300);

/// Does the work of one operation on one VM. Owns the record while it does.
pub struct Worker {
    /// Shared things.
    pub shared: Arc<Shared>,
    /// The operation.
    pub op: Arc<Op>,
    /// Its stages.
    pub stages: Stages,
    /// The VM.
    pub record: VmRecord,
    /// Where the record is shown.
    pub publisher: watch::Sender<Published>,
    /// Told when a kill outranks a grace period.
    pub hurry: watch::Receiver<bool>,
    /// Filled when the VMM ends.
    pub exit: watch::Receiver<Option<ExitStory>>,
    /// What the guest of this start reported of its own stages.
    pub guest_timeline: Vec<Timing>,
    /// What is done about steps of another build.
    pub foreign: Foreign,
    log: Vec<StepEvent>,
    pending: Vec<Write>,
}

/// The channels on which a worker hears of what happens meanwhile.
pub struct Signals {
    /// See [`Worker::hurry`].
    pub hurry: watch::Receiver<bool>,
    /// See [`Worker::exit`].
    pub exit: watch::Receiver<Option<ExitStory>>,
}

impl Worker {
    /// A worker for a new operation. `unsaved` goes with its first commit.
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
            foreign: Foreign::Keep,
            log: Vec::new(),
            pending: unsaved,
        }
    }

    /// Makes a decision that counts only once it is on record: where it cannot be committed, the
    /// record is as it was and nothing of the decision is ever written.
    ///
    /// # Errors
    /// The decision's own, or the store's.
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

    /// Commits the record with whatever waits to be written, and shows it.
    ///
    /// # Errors
    /// The store's; the record is shown all the same, since it tells what is true of the host, and
    /// is written with the next commit. A daemon that never gets to it finds out by itself.
    pub async fn save(&mut self, durability: Durability) -> Result<(), ApiError> {
        self.record.generation += 1;
        self.pending.push(Write::PutVm(Box::new(self.record.clone())));
        let written = self.flush(durability).await;
        self.publish();
        written
    }

    /// As [`Self::save`], where nothing can be done about a store that fails.
    pub async fn save_anyway(&mut self) {
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

    /// Commits what waits to be written.
    ///
    /// # Errors
    /// The store's; what was to be written waits for the next commit.
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

    fn interrupt(&self) -> Interrupt {
        Interrupt::new(self.op.cancelled(), self.exit.clone())
    }

    /// Reaches a crash point.
    pub fn crash(&self, list: ListName, place: &str, when: &str) {
        (self.shared.drivers.crash)(&format!("{}.{place}.{when}", list.as_str()));
    }

    /// Applies these steps in order. The outcome of the last one waits for the next commit.
    ///
    /// # Errors
    /// What went wrong, and the number of steps from the beginning that may have left something.
    pub async fn apply_steps(
        &mut self,
        name: ListName,
        steps: &[StepId],
    ) -> Result<(), (ApiError, usize)> {
        for (place, id) in steps.iter().enumerate() {
            let step = lists::find(name, id).ok_or_else(|| (undo::foreign(), place))?;
            self.go_on().map_err(|error| (error, place))?;
            self.stages.enter(step.stage);
            // Where this fails nothing of the step was begun, but what is before it must go.
            self.intend(&step.id).await.map_err(|error| (error, place))?;
            self.crash(name, step.id.as_str(), "before");
            let context = self.context(&step.id);
            match (step.apply)(&context).await {
                Ok(fact) => {
                    self.crash(name, step.id.as_str(), "applied");
                    self.remember(&step.id, fact).map_err(|error| (error, place + 1))?;
                }
                Err(error) => {
                    let error = self.explained(&context.interrupt, error).await;
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

    /// Why a step really failed: an interruption that is known counts for more than what it led to.
    ///
    /// A guest whose VMM dies hangs up a moment before the end of the VMM is heard of, so after
    /// such a failure that news has a moment to arrive.
    async fn explained(&self, interrupt: &Interrupt, error: ApiError) -> ApiError {
        let reason = match error.code {
            ErrorCode::GuestFailed => timeout(NEWS, interrupt.raised()).await.ok(),
            _ => interrupt.now(),
        };
        reason.map_or(error, |reason| self.interrupted(&reason))
    }

    /// Commits that a step is about to be applied.
    async fn intend(&mut self, step: &StepId) -> Result<(), ApiError> {
        self.note(step, StepEventKind::Started, String::new())?;
        let begun = self.flush(Durability::Process).await;
        if begun.is_err() {
            self.log.pop();
            self.pending.pop();
        }
        begun
    }

    /// Notes the success of a step and keeps what it found out.
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
            (Fact::None(applied), _) => {
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
        if let Fact::Ready(ready) = fact {
            for text in ready.warnings {
                self.op.emit(banger_api::operation::OpEventKind::Warning { text });
            }
            self.guest_timeline = ready.timeline;
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

    /// From here on the end of the VMM is heard by every wait and by the VM's owner.
    pub fn watch_exit(&mut self) {
        let (sender, receiver) = watch::channel(None);
        self.exit = receiver;
        let Some(run) = self.record.run.clone() else { return };
        let vm = self.record.plan.clone();
        let Ok(vmm) = self.shared.drivers.vmm(&vm) else { return };
        tokio::spawn(async move {
            // Nobody listens any more when the run was torn down on purpose.
            let closed = sender.clone();
            tokio::select! {
                story = vmm.exited(&vm, &run) => { sender.send_replace(Some(story)); }
                () = closed.closed() => {}
            }
        });
    }

    /// Forgets how the last run ended, and whoever would still tell.
    pub fn forget_exit(&mut self) {
        self.exit = watch::channel(None).1;
    }

    /// Why this operation should end now, as its error.
    ///
    /// # Errors
    /// Cancelled, or the VMM is gone.
    pub fn go_on(&self) -> Result<(), ApiError> {
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

    /// The state shown at the moment.
    pub fn state(&self) -> VmState {
        self.record.state
    }
}
