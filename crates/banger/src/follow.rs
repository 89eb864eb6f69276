//! Follows an operation to its end and shows its stages on stderr.

use banger_api::operation::Accepted;
use banger_client::Client;
use banger_client::follow::{Done, OnInterrupt};

use crate::context::Context;
use crate::errors::Failure;
use crate::render::progress::Track;

/// Follows an accepted operation. The first Ctrl-C does what `on_interrupt` says, the second one
/// ends the wait.
pub async fn accepted(
    context: &Context,
    client: &Client,
    accepted: &Accepted,
    mut track: Track,
    on_interrupt: OnInterrupt,
) -> Result<Done, Failure> {
    let interrupts = context.interrupts.listen();
    Ok(client.follow_to_end(accepted, interrupts, on_interrupt, &mut track).await?)
}
