//! The end of the task of a VM that no longer exists: its remaining requests are answered.

use banger_api::operation::CancelEffect;
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode};
use tokio::sync::mpsc;

use super::{Message, VmTask};
use crate::queue::Queued;

impl VmTask {
    pub(super) async fn refuse_remaining(
        &mut self,
        mailbox: &mut mpsc::Receiver<Message>,
        urgent: &mut mpsc::Receiver<Message>,
    ) {
        let name = self.record.plan.name.clone();
        let gone = || ApiError::new(ErrorCode::NotFound, format!("`{name}` was deleted"));
        let waiting: Vec<Queued> = self.queue.drain().collect();
        for queued in waiting {
            let Some(op) = self.shared.ops.get(&queued.op) else { continue };
            let result = match queued.action {
                VmAction::Delete { .. } => Ok(None),
                _ => Err(gone()),
            };
            self.book.end(&op, result).await;
        }
        mailbox.close();
        urgent.close();
        while let Some(message) = urgent.recv().await {
            refuse(message, gone());
        }
        while let Some(message) = mailbox.recv().await {
            refuse(message, gone());
        }
    }
}

fn refuse(message: Message, error: ApiError) {
    match message {
        Message::Request { reply, .. } => drop(reply.send(Err(error))),
        Message::Lend { reply, .. } => drop(reply.send(Err(error))),
        Message::Autostart { reply } => drop(reply.send(None)),
        // All operations on this VM have ended already.
        Message::Cancel { reply, .. } => drop(reply.send(Ok(CancelEffect::Ended))),
    }
}
