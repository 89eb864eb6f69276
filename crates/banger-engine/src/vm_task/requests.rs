//! Messages to the task of a VM.

use banger_api::ApiError;
use banger_api::operation::{Accepted, CancelEffect};
use banger_api::vm::VmAction;

use super::{Message, VmTask, wish};
use crate::cancel;
use crate::queue::{Answer, Queued, Scheduling};
use crate::refusals;
use crate::store::Durability;

impl VmTask {
    pub(super) async fn handle(&mut self, message: Message) {
        match message {
            Message::Request { action, context, reply } => {
                let answer = context.run(self.request(action)).await;
                // A client that disconnects does not withdraw its request.
                let _ = reply.send(answer);
            }
            Message::Cancel { op, reply } => {
                let waiting = self.queue.remove(&op.id).is_some();
                let answer = if waiting {
                    self.book.end(&op, Err(cancel::cancelled(&op))).await;
                    Ok(CancelEffect::NotBegun)
                } else {
                    cancel::cancel_started(&op)
                };
                let _ = reply.send(answer);
            }
            Message::Lend { op, reply } => {
                // An operation that has ended does not take it, and it is returned at once.
                let _ = reply.send(self.lend(op).await);
            }
            Message::Autostart { reply } => self.autostart = Some(reply),
        }
    }

    async fn request(&mut self, action: VmAction) -> Result<Accepted, ApiError> {
        let state = self.publisher.borrow().record.state;
        let vm = Some(self.record.tag());
        match self.queue.answer(state, &action) {
            Answer::AlreadySo(operation) => {
                self.stop_wanted |= wish::is_stop(&action);
                if self.job.is_none() {
                    self.keep_stopped().await;
                }
                Ok(Accepted { operation, vm, warnings: Vec::new() })
            }
            Answer::Refused(refusal) => {
                Err(refusals::explain(&self.record.plan.name, &action, &refusal))
            }
            Answer::Do(scheduling) => {
                let op = self.book.open(action.as_str(), Durability::Power).await?;
                self.interrupt_lending(&action);
                self.queue.push(Queued { op: op.id.clone(), action });
                if scheduling == Scheduling::InterruptCurrent {
                    self.interrupt();
                }
                Ok(Accepted { operation: Some(op.id.clone()), vm, warnings: Vec::new() })
            }
        }
    }
}
