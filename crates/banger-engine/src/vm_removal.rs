//! How a VM is removed and repaired, with the one teardown of [`crate::vm_jobs`].

use banger_api::ApiError;
use banger_api::operation::{OpEventKind, stage};
use banger_api::vm::{StopKind, StoppedBecause, VmState};

use crate::lists::ListName;
use crate::record::{Existence, Fate, VmRecord};
use crate::runner::Worker;
use crate::state::VmEvent;
use crate::store::{Durability, Write};
use crate::undo::{self, Foreign};
use crate::vm_jobs::event;

impl Worker {
    /// Removes the VM with its disks, ending it first if it runs.
    ///
    /// # Errors
    /// What could not be removed; the VM is broken then.
    pub async fn delete(&mut self) -> Result<Fate, ApiError> {
        if self.foreign == Foreign::Keep && self.state() == VmState::Stopped {
            // Refused as long as nothing was removed.
            undo::has_drivers(&self.shared.drivers, &self.record.plan)?;
        }
        match self.state() {
            VmState::Running | VmState::Paused => {
                self.end_accepted(VmEvent::StopAccepted).await?;
                self.tear_down(StoppedBecause::Asked { how: StopKind::Killed }).await?;
            }
            VmState::Broken => {
                self.end_stray().await?;
                let steps = self.run_steps();
                let problems = self.undo_steps(ListName::Start, &steps).await;
                if !problems.is_empty() {
                    return Err(self.broken(problems, None).await);
                }
            }
            VmState::Stopped => self.end_stray().await?,
            VmState::Starting | VmState::Stopping | VmState::Deleting => {}
        }
        self.crash(ListName::Create, "delete_commit", "before");
        // From here on disks go: that this was asked for must survive a power cut, so nothing of it
        // happens where it cannot be written down.
        let accepted = |record: &mut VmRecord| {
            if record.state != VmState::Deleting {
                event(record, VmEvent::DeleteAccepted)?;
            }
            record.existence = Existence::Removing;
            record.run = None;
            Ok(())
        };
        self.decide(Durability::Power, accepted).await?;
        self.crash(ListName::Create, "delete_commit", "after");
        self.stages.enter(stage::REMOVE_DISKS);
        self.undo_create().await
    }

    /// Undoes everything that a create did, and the VM with it.
    ///
    /// # Errors
    /// What could not be undone; the VM is broken then.
    pub async fn undo_create(&mut self) -> Result<Fate, ApiError> {
        let steps = self.record.made.clone();
        let problems = self.undo_steps(ListName::Create, &steps).await;
        if !problems.is_empty() {
            return Err(self.broken(problems, None).await);
        }
        self.removed().await
    }

    pub(crate) async fn removed(&mut self) -> Result<Fate, ApiError> {
        event(&mut self.record, VmEvent::Removed)?;
        self.write(Write::RemoveVm(self.record.plan.id.clone()));
        self.crash(ListName::Create, "removed_commit", "before");
        // The next daemon finds a VM to be removed of which nothing is left, and removes it.
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
                self.end_stray().await?;
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
}
