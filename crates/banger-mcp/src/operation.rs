//! Operations of the daemon, followed with progress notifications.

use banger_api::operation::{Accepted, OpEvent, OpEventKind};
use banger_api::{ApiError, ErrorCode};
use banger_client::Client;
use banger_client::follow::{FollowError, Interrupts, Notice, Observer, OnInterrupt};
use banger_client::text::line;
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use tokio::sync::{mpsc, watch};

use crate::progress::Progress;

/// Messages that wait for the client; more are dropped.
const QUEUE: usize = 64;

/// Turns events into messages.
struct Stages(mpsc::Sender<String>);

impl Observer for Stages {
    fn event(&mut self, event: &OpEvent) {
        let message = match &event.what {
            OpEventKind::StageStarted { stage } => stage.clone(),
            OpEventKind::Progress { stage, done, total, unit } => {
                let unit = unit.as_deref().unwrap_or("bytes");
                match total {
                    Some(total) => format!("{stage}: {done} of {total} {unit}"),
                    None => format!("{stage}: {done} {unit}"),
                }
            }
            OpEventKind::Note { text } => text.clone(),
            OpEventKind::Warning { text } => format!("warning: {text}"),
            _ => return,
        };
        // Stages are information only: a slow client misses some.
        let _ = self.0.try_send(line(&message));
    }

    fn notice(&mut self, notice: Notice<'_>) {
        if let Notice::Warning(text) = notice {
            let _ = self.0.try_send(line(&format!("warning: {text}")));
        }
    }
}

/// Follows an operation to its end. A cancelled call cancels the operation, if it can be.
///
/// # Errors
/// The operation's.
pub async fn follow(
    client: &Client,
    accepted: &Accepted,
    on_cancel: OnInterrupt,
    context: &RequestContext<RoleServer>,
    progress: &mut Progress,
) -> Result<(), ApiError> {
    let (to, mut messages) = mpsc::channel(QUEUE);
    let (interrupt, interrupts) = watch::channel(0);
    let mut stages = Stages(to);
    let following =
        client.follow_to_end(accepted, Interrupts::new(interrupts), on_cancel, &mut stages);
    tokio::pin!(following);
    let mut cancelled = false;
    let done = loop {
        tokio::select! {
            done = &mut following => break done,
            Some(message) = messages.recv() => progress.tell(1, message).await,
            () = context.ct.cancelled(), if !cancelled => {
                cancelled = true;
                interrupt.send_replace(1);
            }
        }
    };
    match done {
        Ok(_) => Ok(()),
        Err(FollowError::Failed(error) | FollowError::Cancelled(error)) => Err(*error),
        Err(FollowError::WaitEnded(_)) => {
            Err(ApiError::new(ErrorCode::Cancelled, "the wait was cancelled"))
        }
    }
}
