//! The work of an operation on a VM.

use banger_api::ApiError;
use banger_api::vm::{StoppedBecause, VmAction};

use crate::drivers::ExitStory;
use crate::queue::Queued;
use crate::record::{Presence, Wanted};
use crate::recovery::{self, Action, Ending};
use crate::runner::Worker;
use crate::store::Durability;
use crate::undo::Foreign;
use crate::vm_jobs::ThenStart;

/// The work of one operation.
pub enum Work {
    /// Create the VM.
    Create(ThenStart),
    /// Start the VM because the daemon has started.
    Autostart,
    /// Carry out a request of a client.
    Queued(Queued),
    /// Tear down a run whose VMM ended without a request.
    Exited(ExitStory),
    /// Complete or undo the unfinished work of an earlier daemon.
    Recover(Action),
}

impl Work {
    /// The request that leads to the same state; `None` if the state does not change.
    pub fn equivalent_action(&self) -> Option<VmAction> {
        let of_end = |ending: &Ending| match ending {
            Ending::Stay(_) => VmAction::STOP,
            Ending::Reboot => VmAction::Restart { grace_ms: 0 },
        };
        match self {
            Self::Create(ThenStart::Yes) | Self::Autostart => Some(VmAction::Start {}),
            Self::Create(ThenStart::No) => Some(VmAction::STOP),
            Self::Queued(queued) => Some(queued.action.clone()),
            Self::Exited(story) => Some(of_end(&recovery::ending(story))),
            Self::Recover(action) => match action {
                Action::Nothing | Action::MarkBroken(_) | Action::Adopt { .. } => None,
                Action::SettleReset => Some(VmAction::Reset {}),
                Action::UnwindStart | Action::ResumeStop => Some(VmAction::STOP),
                Action::EndRun(ending) => Some(of_end(ending)),
                Action::UnwindCreate | Action::FinishDelete => {
                    Some(VmAction::Delete { force: true })
                }
            },
        }
    }

    /// The state that the user wants from now on; `None` if the work does not follow from a wish.
    fn wanted(&self) -> Option<Wanted> {
        let of_end = |ending: &Ending| match ending {
            Ending::Stay(StoppedBecause::GuestPoweredOff | StoppedBecause::ProgramEnded { .. }) => {
                Some(Wanted::Stopped)
            }
            Ending::Stay(_) | Ending::Reboot => None,
        };
        match self {
            Self::Create(ThenStart::Yes) => Some(Wanted::Running),
            Self::Create(ThenStart::No) | Self::Autostart => None,
            Self::Exited(story) => of_end(&recovery::ending(story)),
            Self::Recover(Action::EndRun(ending)) => of_end(ending),
            Self::Recover(_) => None,
            Self::Queued(queued) => match queued.action {
                VmAction::Start {} | VmAction::Restart { .. } => Some(Wanted::Running),
                VmAction::Stop { .. } | VmAction::Kill {} => Some(Wanted::Stopped),
                VmAction::Pause {}
                | VmAction::Resume {}
                | VmAction::Delete { .. }
                | VmAction::Repair {}
                | VmAction::Set(_)
                | VmAction::Rename { .. }
                | VmAction::Reset {} => None,
            },
        }
    }
}

impl Worker {
    /// Does the work, then commits pending writes.
    ///
    /// # Errors
    /// Errors of the work.
    pub async fn work(&mut self, work: Work) -> Result<Presence, ApiError> {
        if let Some(wanted) = work.wanted() {
            self.record.want(wanted);
        }
        let result = self.carry_out(work).await;
        // Work without a commit, or with a failed last commit, leaves pending writes.
        if let Err(error) = self.flush(Durability::Process).await {
            tracing::error!(op = %self.op.id, error = %error, causes = ?error.causes, "store");
        }
        result
    }

    async fn carry_out(&mut self, work: Work) -> Result<Presence, ApiError> {
        match work {
            Work::Create(then) => self.create(then).await,
            Work::Autostart => self.autostart().await,
            Work::Exited(story) => self.exited(&story).await,
            Work::Recover(action) => self.recover(action).await,
            Work::Queued(queued) => match queued.action {
                VmAction::Start {} => self.start().await,
                VmAction::Stop { grace_ms } => self.stop(grace_ms).await,
                VmAction::Kill {} => self.stop(0).await,
                VmAction::Restart { grace_ms } => self.restart(grace_ms).await,
                VmAction::Delete { force } => {
                    self.foreign = if force { Foreign::Abandon } else { Foreign::Keep };
                    self.delete().await
                }
                VmAction::Pause {} => self.pause().await,
                VmAction::Resume {} => self.resume().await,
                VmAction::Repair {} => self.repair().await,
                VmAction::Set(set) => self.set(&set).await,
                VmAction::Rename { name } => self.rename(&name).await,
                VmAction::Reset {} => self.reset().await,
            },
        }
    }
}
