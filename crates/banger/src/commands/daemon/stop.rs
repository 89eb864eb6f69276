//! `banger daemon stop`.

use banger_api::exit;
use banger_client::Presence;

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;

/// Stop the daemon. VMs and sessions continue; the next command starts it again.
///
///   banger daemon stop
///   banger daemon start
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let pid = match context.client_as_is()?.stop_daemon().await? {
        Presence::Answering(status) => Some(status.pid),
        Presence::Absent => None,
    };
    match (context.format, pid) {
        (Format::Json, _) => {
            context.json(&serde_json::json!({ "stopped": pid.is_some(), "pid": pid }))?;
        }
        (Format::Text, _) if context.verbosity == Verbosity::Quiet => {}
        (Format::Text, Some(pid)) => context.print(&format!("the daemon (pid {pid}) stopped\n"))?,
        (Format::Text, None) => context.print("no daemon was running\n")?,
    }
    Ok(exit::OK)
}
