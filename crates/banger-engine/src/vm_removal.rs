//! Delete and repair of a VM, with the teardown of [`crate::vm_jobs`].

use banger_api::ApiError;
use banger_api::operation::{OpEventKind, stage};
use banger_api::vm::{StopKind, StoppedBecause, VmState};

use crate::lists::ListName;
use crate::record::{Existence, Presence, VmRecord};
use crate::runner::Worker;
use crate::state::VmEvent;
use crate::store::{Durability, Write};
use crate::undo::{self, Foreign};
use crate::vm_jobs::event;

impl Worker {
    /// Deletes the VM with its disks; kills it first if it is running.
    ///
    /// # Errors
    /// Those of a failed undo; the VM is broken then.
    pub async fn delete(&mut self) -> Result<Presence, ApiError> {
        if self.foreign == Foreign::Keep && self.state() == VmState::Stopped {
            // Refused before any step is undone.
            undo::has_drivers(&self.shared.drivers, &self.record.plan)?;
        }
        match self.state() {
            VmState::Running | VmState::Paused => {
                self.begin_teardown(VmEvent::StopAccepted).await?;
                self.tear_down(StoppedBecause::Requested { how: StopKind::Killed }).await?;
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
        // Disks are removed from here on: the delete must survive a power loss, so it fails if it
        // cannot be recorded.
        let accepted = |record: &mut VmRecord| {
            if record.state != VmState::Deleting {
                event(record, VmEvent::DeleteAccepted)?;
            }
            record.existence = Existence::Deleting;
            record.run = None;
            Ok(())
        };
        self.decide(Durability::Power, accepted).await?;
        self.crash(ListName::Create, "delete_commit", "after");
        self.stages.enter(stage::REMOVE_DISKS);
        self.undo_create().await
    }

    /// Undoes all steps of the create and removes the VM.
    ///
    /// # Errors
    /// Those of a failed undo; the VM is broken then.
    pub async fn undo_create(&mut self) -> Result<Presence, ApiError> {
        let steps = self.record.made.clone();
        let problems = self.undo_steps(ListName::Create, &steps).await;
        if !problems.is_empty() {
            return Err(self.broken(problems, None).await);
        }
        self.removed().await
    }

    pub(crate) async fn removed(&mut self) -> Result<Presence, ApiError> {
        event(&mut self.record, VmEvent::Removed)?;
        self.write(Write::RemoveVm(self.record.plan.id.clone()));
        self.crash(ListName::Create, "removed_commit", "before");
        // If the store fails, the next daemon repeats the removal without effect on the host.
        if let Err(error) = self.flush(Durability::Process).await {
            tracing::error!(op = %self.op.id, error = %error, "store");
        }
        self.crash(ListName::Create, "removed_commit", "after");
        self.stages.finish();
        Ok(Presence::Removed)
    }

    /// Repeats the undo that left the VM broken.
    ///
    /// # Errors
    /// Those of a failed undo.
    pub async fn repair(&mut self) -> Result<Presence, ApiError> {
        if self.state() != VmState::Broken {
            return Ok(Presence::Exists);
        }
        match self.record.existence {
            Existence::Created => {
                self.end_stray().await?;
                let because = self.record.because.clone().unwrap_or(StoppedBecause::VmmDied {
                    story: "it was broken and has been repaired".into(),
                });
                self.tear_down(because).await?;
                Ok(Presence::Exists)
            }
            // An incomplete create or delete cannot be completed to a whole VM: remove it.
            Existence::Creating | Existence::Deleting => {
                let text = "its create or delete was incomplete: the VM is deleted now".into();
                self.op.emit(OpEventKind::Note { text });
                self.delete().await
            }
        }
    }
}
