//! What the user wants of a VM when no operation changes it, and its automatic start.

use banger_api::vm::{VmAction, VmState};

use super::VmTask;
use crate::autostart;
use crate::record::Wanted;
use crate::store::{Durability, Write};
use crate::work::Work;

/// Whether the user wants the VM to be stopped.
pub(super) fn is_stop(action: &VmAction) -> bool {
    matches!(action, VmAction::Stop { .. } | VmAction::Kill {})
}

impl VmTask {
    /// Records that a user stopped a VM that was stopped already, such as one whose VMM died, so
    /// that the next daemon does not start it. No operation may be in progress.
    pub(super) async fn keep_stopped(&mut self) {
        let stop_wanted = std::mem::take(&mut self.stop_wanted);
        let stopped = self.record.state == VmState::Stopped;
        if !stop_wanted || !stopped || self.record.wanted == Wanted::Stopped {
            return;
        }
        self.record.want(Wanted::Stopped);
        self.record.generation += 1;
        let put = Write::PutVm(Box::new(self.record.clone()));
        if let Err(error) = self.shared.store.commit(vec![put], Durability::Process).await {
            tracing::error!(vm = %self.record.plan.id, error = %error, "store");
        }
        let record = std::sync::Arc::new(self.record.clone());
        self.publisher.send_modify(|published| published.record = record);
        self.shared.changed();
    }

    /// Starts the VM if the daemon requested it and the user wants it to run. No request may wait:
    /// the user's requests come first.
    pub(super) async fn begin_autostart(&mut self) {
        let Some(reply) = self.autostart.take() else { return };
        // A daemon that stops does not wait for an answer.
        if reply.is_closed() || !autostart::is_due(&self.record) {
            let _ = reply.send(None);
            return;
        }
        match self.book.open("autostart", Durability::Process).await {
            Ok(op) => {
                self.begin_unqueued(op.clone(), Work::Autostart, Vec::new());
                let _ = reply.send(Some(op));
            }
            Err(error) => {
                tracing::error!(vm = %self.record.plan.id, error = %error, "not started");
                let _ = reply.send(None);
            }
        }
    }
}
