//! What the operations on a VM consist of, written in terms of lists and of the state machine.
//!
//! There is one teardown, [`Worker::tear_down`]: stop, kill, failed start, cancel, death of the VMM
//! and recovery all go through it.

use std::time::Duration;

use banger_api::operation::{OpEventKind, stage};
use banger_api::vm::{StartReport, StopKind, StoppedBecause, VmState};
use banger_api::{ApiError, ErrorCode};

use crate::drivers::ExitStory;
use crate::lists::{CREATE, START};
use crate::plan::RunPlan;
use crate::record::{Existence, Fate, Inspect};
use crate::recovery::{self, Ending};
use crate::runner::{ListName, Worker};
use crate::state::VmEvent;
use crate::store::{Durability, Write};

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

impl Worker {
    pub(crate) fn event(&mut self, event: VmEvent) -> Result<Fate, ApiError> {
        self.record.apply(event).map_err(|illegal| {
            let name = &self.record.plan.name;
            ApiError::new(ErrorCode::Internal, format!("`{name}` cannot do that"))
                .caused_by(&illegal)
        })
    }

    /// Makes what lasts; undone entirely, the VM with it, when it fails.
    ///
    /// # Errors
    /// The step's, with what could not be undone.
    pub async fn create(&mut self, then: ThenStart) -> Result<Fate, ApiError> {
        if let Err((error, count)) = self.apply_list(CREATE, ListName::Create).await {
            self.stages.abandon();
            return Err(self.unmake(count, error).await);
        }
        self.record.existence = Existence::Whole;
        self.crash(ListName::Create, "commit", "before");
        self.save(Durability::Power).await?;
        self.crash(ListName::Create, "commit", "after");
        match then {
            ThenStart::No => Ok(Fate::Lives),
            ThenStart::Yes => self.start().await,
        }
    }

    /// Undoes a create that did not get through.
    async fn unmake(&mut self, count: usize, error: ApiError) -> ApiError {
        let problems = self.undo_list(CREATE, count, ListName::Create).await;
        match self.end_removal(problems).await {
            Ok(_) => error,
            Err(mut broken) => {
                broken.causes.insert(0, error.message);
                broken
            }
        }
    }

    /// Boots the VM.
    ///
    /// # Errors
    /// Preflight's, or the failing step's; the VM is stopped then, or broken.
    pub async fn start(&mut self) -> Result<Fate, ApiError> {
        self.stages.enter(stage::PREFLIGHT);
        let vm = self.record.plan.clone();
        let vmm = self.shared.drivers.vmm(&vm)?;
        if let Err(error) = vmm.preflight(&vm).await {
            self.stages.abandon();
            return Err(self.start_refused(error).await);
        }
        self.event(VmEvent::StartAccepted)?;
        self.record.inspect = Inspect::No;
        self.record.run = Some(RunPlan {
            operation: self.op.id.clone(),
            host_boot_id: self.shared.drivers.host.boot_id(),
            shim: None,
            vmm_pid: None,
            boot_id: None,
        });
        if let Err(error) = self.save(Durability::Process).await {
            return Err(self.start_failed(error, 0).await);
        }
        if let Err((error, count)) = self.apply_list(START, ListName::Start).await {
            self.stages.abandon();
            return Err(self.start_failed(error, count).await);
        }
        self.stages.enter(stage::READY);
        self.stages.finish();
        self.event(VmEvent::Booted)?;
        let guest = self.record.start.take().map(|report| report.guest).unwrap_or_default();
        let stages = self.stages.take_done();
        self.record.start = Some(StartReport { total_ms: self.op.elapsed_ms(), stages, guest });
        self.crash(ListName::Start, "commit", "before");
        if let Err(error) = self.save(Durability::Process).await {
            self.event(VmEvent::Exited)?;
            return Err(self.start_failed(error, START.len()).await);
        }
        self.crash(ListName::Start, "commit", "after");
        Ok(Fate::Lives)
    }

    /// A start that was refused before it began leaves the VM as it was.
    async fn start_refused(&mut self, error: ApiError) -> ApiError {
        self.record.inspect = Inspect::Yes;
        self.record.because = Some(StoppedBecause::StartFailed {
            operation: self.op.id.clone(),
            error: error.message.clone(),
        });
        if let Err(unsaved) = self.save(Durability::Process).await {
            tracing::warn!(op = %self.op.id, error = %unsaved, "store");
        }
        error
    }

    async fn start_failed(&mut self, mut error: ApiError, count: usize) -> ApiError {
        let because = StoppedBecause::StartFailed {
            operation: self.op.id.clone(),
            error: error.message.clone(),
        };
        // Somebody who cancelled does not want to look at it; somebody whose start failed may.
        if error.code != ErrorCode::Cancelled {
            self.record.inspect = Inspect::Yes;
        }
        if let Err(broken) = self.undo_run(count, because).await {
            error.causes.push(broken.message);
            error.causes.extend(broken.causes);
            error.hint = broken.hint;
        }
        error
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
            self.event(VmEvent::StopAccepted)?;
            self.save(Durability::Process).await?;
        }
        let how = if grace_ms == 0 { StopKind::Killed } else { self.shut_down(grace_ms).await };
        tracing::info!(op = %self.op.id, vm = %self.record.plan.id, ?how, "stopped");
        self.tear_down(StoppedBecause::Asked { how }).await?;
        Ok(Fate::Lives)
    }

    /// Waits for the guest to go down by itself.
    async fn shut_down(&mut self, grace_ms: u64) -> StopKind {
        self.stages.enter(stage::SHUTDOWN);
        let guest = self.shared.drivers.guest.clone();
        let vm = self.record.plan.clone();
        let mut exit = self.exit.clone();
        let mut hurry = self.hurry.clone();
        let ask = async {
            while let Err(error) = guest.power_off(&vm).await {
                tracing::warn!(vm = %vm.id, error = %error, "the guest was not reached, asking again");
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
        self.undo_run(START.len(), because).await
    }

    async fn undo_run(&mut self, count: usize, because: StoppedBecause) -> Result<(), ApiError> {
        let problems = self.undo_list(START, count, ListName::Start).await;
        if problems.is_empty() {
            self.event(VmEvent::AllUndone)?;
            self.record.run = None;
            self.record.because = Some(because);
            self.crash(ListName::Start, "undo_commit", "before");
            // What is true of the host stays true when it cannot be written down: the next daemon
            // finds an open run, undoes nothing that exists, and comes to the same end.
            if let Err(error) = self.save(Durability::Process).await {
                tracing::error!(op = %self.op.id, error = %error, "store");
            }
            self.crash(ListName::Start, "undo_commit", "after");
            self.stages.finish();
            return Ok(());
        }
        Err(self.broken(problems).await)
    }

    async fn broken(&mut self, problems: Vec<String>) -> ApiError {
        self.stages.abandon();
        let name = self.record.plan.name.clone();
        let mut error = ApiError::new(
            ErrorCode::Internal,
            format!("`{name}` is broken: not all could be undone"),
        )
        .with_hint(format!(
            "`banger vm repair {name}` tries again; `banger vm delete -f {name}` removes it"
        ));
        error.causes = problems.clone();
        if let Err(illegal) = self.event(VmEvent::UndoFailed) {
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

    /// Removes the VM with its disks, ending it first if it runs.
    ///
    /// # Errors
    /// What could not be removed; the VM is broken then.
    pub async fn delete(&mut self) -> Result<Fate, ApiError> {
        match self.state() {
            VmState::Running | VmState::Paused => {
                self.event(VmEvent::StopAccepted)?;
                self.save(Durability::Process).await?;
                self.tear_down(StoppedBecause::Asked { how: StopKind::Killed }).await?;
            }
            VmState::Broken => {
                let problems = self.undo_list(START, START.len(), ListName::Start).await;
                if !problems.is_empty() {
                    return Err(self.broken(problems).await);
                }
            }
            VmState::Stopped | VmState::Starting | VmState::Stopping | VmState::Deleting => {}
        }
        if self.state() != VmState::Deleting {
            self.event(VmEvent::DeleteAccepted)?;
        }
        self.record.existence = Existence::Removing;
        self.crash(ListName::Create, "delete_commit", "before");
        // From here on disks go: that this was asked for must survive a power cut.
        self.save(Durability::Power).await?;
        self.crash(ListName::Create, "delete_commit", "after");
        self.stages.enter(stage::REMOVE_DISKS);
        let problems = self.undo_list(CREATE, CREATE.len(), ListName::Create).await;
        self.end_removal(problems).await
    }

    pub(crate) async fn end_removal(&mut self, problems: Vec<String>) -> Result<Fate, ApiError> {
        if !problems.is_empty() {
            return Err(self.broken(problems).await);
        }
        self.event(VmEvent::Removed)?;
        self.write(Write::RemoveVm(self.record.plan.id.clone()));
        self.crash(ListName::Create, "removed_commit", "before");
        if let Err(error) = self.flush(Durability::Process).await {
            tracing::error!(op = %self.op.id, error = %error, "store");
        }
        self.crash(ListName::Create, "removed_commit", "after");
        self.stages.finish();
        Ok(Fate::Gone)
    }

    /// Tries again to undo what left the VM broken.
    ///
    /// # Errors
    /// What still cannot be undone.
    pub async fn repair(&mut self) -> Result<Fate, ApiError> {
        if self.state() != VmState::Broken {
            return Ok(Fate::Lives);
        }
        match self.record.existence {
            Existence::Whole => {
                let because = self.record.because.clone().unwrap_or(StoppedBecause::VmmDied {
                    story: "it was broken and has been repaired".into(),
                });
                self.tear_down(because).await?;
                Ok(Fate::Lives)
            }
            // What is half made or half removed cannot be made whole; what was asked for last was
            // that it should not exist.
            Existence::Making | Existence::Removing => {
                let text = "its create or delete had not got through: it is removed now".into();
                self.op.emit(OpEventKind::Note { text });
                self.delete().await
            }
        }
    }

    /// The VMM ended by itself.
    ///
    /// # Errors
    /// What could not be undone, or the failure of the start that a reboot asked for.
    pub async fn exited(&mut self, story: &ExitStory) -> Result<Fate, ApiError> {
        tracing::warn!(vm = %self.record.plan.id, story = %story.summary, "the VMM ended");
        self.event(VmEvent::Exited)?;
        self.save(Durability::Process).await?;
        self.end_run(recovery::ending(story)).await
    }

    /// Undoes a run that is over, and starts again if the guest asked for a reboot.
    ///
    /// # Errors
    /// As [`Self::exited`].
    pub async fn end_run(&mut self, ending: Ending) -> Result<Fate, ApiError> {
        match ending {
            Ending::Stay(because) => {
                self.tear_down(because).await?;
                Ok(Fate::Lives)
            }
            Ending::Reboot => {
                self.tear_down(StoppedBecause::GuestPoweredOff).await?;
                let now = self.shared.drivers.host.now_unix_ms();
                if recovery::follow_reboot(&mut self.record.reboots, now) {
                    return self.start().await;
                }
                let text = "the guest rebooted itself too often and stays stopped".into();
                self.record.because = Some(StoppedBecause::VmmDied { story: text });
                self.save(Durability::Process).await?;
                Ok(Fate::Lives)
            }
        }
    }
}
