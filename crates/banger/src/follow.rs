//! Following an operation to its end, with its stages shown and Ctrl-C heard.

use banger_api::operation::{Accepted, OpEventKind};
use banger_api::{ErrorCode, OpId};
use banger_client::Client;

use crate::context::Context;
use crate::errors::Failure;
use crate::render::progress::Track;

/// What the first Ctrl-C does to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels it.
    Cancel,
    /// Nothing: undoing a removal is not what anybody wants.
    GoOn,
}

/// Follows what was accepted; gives the id of what was made, where something was.
pub async fn accepted(
    context: &Context,
    client: &Client,
    accepted: &Accepted,
    track: Track,
    on_interrupt: OnInterrupt,
) -> Result<Option<String>, Failure> {
    for warning in &accepted.warnings {
        track.warn(warning);
    }
    match &accepted.operation {
        Some(operation) => follow(context, client, operation, track, on_interrupt).await,
        None => Ok(None),
    }
}

/// Follows an operation. The second Ctrl-C leaves it to the daemon.
async fn follow(
    context: &Context,
    client: &Client,
    operation: &OpId,
    mut track: Track,
    on_interrupt: OnInterrupt,
) -> Result<Option<String>, Failure> {
    context.detail(&format!("operation {operation}"));
    let mut pressed = context.interrupts.listen();
    let already = *pressed.borrow_and_update();
    let mut events = client.follow(operation);
    let mut cancelled = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            Ok(()) = pressed.changed() => {
                if *pressed.borrow_and_update() > already + 1 {
                    track.leave("left; the daemon finishes it");
                    return Err(Failure::Left);
                }
                if on_interrupt == OnInterrupt::GoOn {
                    track.note("almost done; Ctrl-C again leaves at once");
                    continue;
                }
                cancelled = true;
                track.note("cancelling; Ctrl-C again leaves at once");
                let answer = tokio::select! {
                    answer = client.cancel(operation) => answer,
                    // A daemon that is stuck holds nobody up.
                    Ok(()) = pressed.changed() => {
                        track.leave("left; the daemon does not answer");
                        return Err(Failure::Left);
                    }
                };
                match answer {
                    // It ended meanwhile; its last event says how.
                    Err(error) if error.code == ErrorCode::NotFound => {}
                    other => other?,
                }
                continue;
            }
        };
        let Some(event) = event else { return Ok(None) };
        track.event(&event);
        match event.what {
            OpEventKind::Succeeded { made } => {
                track.end();
                return Ok(made);
            }
            OpEventKind::Failed { error } => {
                track.end();
                let error = error.in_operation(operation);
                let ours = cancelled && error.code == ErrorCode::Cancelled;
                return Err(if ours { Failure::Cancelled(Box::new(error)) } else { error.into() });
            }
            _ => {}
        }
    }
}
