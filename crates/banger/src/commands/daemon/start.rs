//! `banger daemon start`.

use crate::commands::daemon::status;
use crate::context::Context;
use crate::errors::Failure;

/// Start the daemon. Commands that need the daemon also start it.
///
///   banger daemon start
///   banger daemon status
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let status = context.client_as_is()?.ensure_daemon().await?;
    status::show(context, &status)
}
