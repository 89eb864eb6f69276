//! The kinds of work that an operation can be for a VM.

use banger_api::ApiError;
use banger_api::vm::VmAction;

use crate::drivers::ExitStory;
use crate::queue::Queued;
use crate::record::Fate;
use crate::recovery::{self, Action, Ending};
use crate::runner::Worker;
use crate::store::Durability;
use crate::undo::Foreign;
use crate::vm_jobs::ThenStart;

/// What is to be done.
pub enum Work {
    /// A new VM.
    Create(ThenStart),
    /// What a client asked for.
    Queued(Queued),
    /// The VMM ended by itself.
    Exited(ExitStory),
    /// What an earlier daemon left.
    Recover(Action),
}

impl Work {
    /// The request that would lead to the same; none where nothing changes.
    pub fn leads_to(&self) -> Option<VmAction> {
        let of_end = |ending: &Ending| match ending {
            Ending::Stay(_) => VmAction::STOP,
            Ending::Reboot => VmAction::Restart { grace_ms: 0 },
        };
        match self {
            Self::Create(ThenStart::Yes) => Some(VmAction::Start {}),
            Self::Create(ThenStart::No) => Some(VmAction::STOP),
            Self::Queued(queued) => Some(queued.action),
            Self::Exited(story) => Some(of_end(&recovery::ending(story))),
            Self::Recover(action) => match action {
                Action::Nothing | Action::MarkBroken(_) | Action::Adopt { .. } => None,
                Action::UnwindStart | Action::ResumeStop => Some(VmAction::STOP),
                Action::EndRun(ending) => Some(of_end(ending)),
                Action::UnwindCreate | Action::FinishDelete => {
                    Some(VmAction::Delete { force: true })
                }
            },
        }
    }
}

impl Worker {
    /// Does the work, and leaves nothing unwritten that can be written.
    ///
    /// # Errors
    /// The work's own.
    pub async fn work(&mut self, work: Work) -> Result<Fate, ApiError> {
        let result = self.carry_out(work).await;
        // Work that changed nothing, or whose last commit failed, may have left something.
        if let Err(error) = self.flush(Durability::Process).await {
            tracing::error!(op = %self.op.id, error = %error, causes = ?error.causes, "store");
        }
        result
    }

    async fn carry_out(&mut self, work: Work) -> Result<Fate, ApiError> {
        match work {
            Work::Create(then) => self.create(then).await,
            Work::Exited(story) => self.exited(&story).await,
            Work::Recover(action) => self.recover(action).await,
            Work::Queued(queued) => match queued.action {
                VmAction::Start {} => self.start().await,
                VmAction::Stop { grace_ms } => self.stop(grace_ms).await,
                VmAction::Kill {} => self.stop(0).await,
                VmAction::Restart { grace_ms } => self.restart(grace_ms).await,
                VmAction::Delete { force } => {
                    self.foreign = if force { Foreign::GiveUp } else { Foreign::Keep };
                    self.delete().await
                }
                VmAction::Repair {} => self.repair().await,
            },
        }
    }
}
