//! Follows an operation to its end and shows its stages on stderr.

use banger_api::ApiError;
use banger_api::operation::Accepted;
use banger_client::Client;
use banger_client::follow::{self, Done, FollowError, Interrupts, OnInterrupt};

use crate::context::Context;
use crate::errors::Failure;
use crate::render::progress::{AWAITING_ANSWER, REQUEST_UNANSWERED, Track};

/// Sends a request that starts an operation, and returns the answer with the interrupts for
/// [`accepted`]. An interrupt before the answer takes effect on the operation.
pub async fn request(
    context: &Context,
    request: impl Future<Output = Result<Accepted, ApiError>>,
) -> Result<(Accepted, Interrupts), Failure> {
    let interrupts = context.interrupts.listen();
    let awaiting = || context.info(AWAITING_ANSWER);
    match follow::accepted(request, &interrupts, awaiting).await {
        Ok(accepted) => Ok((accepted, interrupts)),
        Err(FollowError::WaitEnded(end)) => {
            context.info(REQUEST_UNANSWERED);
            Err(FollowError::WaitEnded(end).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Follows an accepted operation. The first Ctrl-C does what `on_interrupt` says, the second one
/// ends the wait.
pub async fn accepted(
    client: &Client,
    (accepted, interrupts): (&Accepted, Interrupts),
    mut track: Track,
    on_interrupt: OnInterrupt,
) -> Result<Done, Failure> {
    Ok(client.follow_to_end(accepted, interrupts, on_interrupt, &mut track).await?)
}
