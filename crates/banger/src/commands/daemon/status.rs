//! `banger daemon status`.

use banger_api::daemon::{DaemonStatus, DnsStatus};
use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_client::Presence;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::time::span;

/// Show whether the daemon runs, its socket and its log. Does not start it.
///
///   banger daemon status
///   banger daemon status --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let client = context.client_as_is()?;
    match client.probe_daemon().await? {
        Presence::Answering(status) => show(context, &status),
        Presence::Absent => {
            let socket = client.paths().socket();
            let text = format!("no daemon runs at `{}`", socket.display());
            Err(ApiError::new(ErrorCode::DaemonUnavailable, text)
                .with_hint(Hint::text(
                    "`banger daemon start` and all commands that need the daemon start it",
                ))
                .into())
        }
    }
}

/// Prints the status of a daemon.
pub fn show(context: &Context, status: &DaemonStatus) -> Result<u8, Failure> {
    match context.format {
        Format::Json => context.json(status)?,
        Format::Text => context.print(&text(status))?,
    }
    Ok(exit::OK)
}

fn text(status: &DaemonStatus) -> String {
    let uptime = span(i64::try_from(status.uptime_s).unwrap_or(i64::MAX));
    let host = if status.simulated { "simulated\n" } else { "this one\n" };
    let dns = match &status.dns {
        Some(DnsStatus { listen, problem: None }) => format!("dns         {listen}\n"),
        Some(DnsStatus { listen, problem: Some(problem) }) => {
            format!("dns         not on {listen}: {problem}\n")
        }
        None => String::new(),
    };
    format!(
        "pid         {}\nversion     {} (build {})\nup          {uptime}\nhost        {host}\
         socket      {}\nlog         {}\n{dns}vms         {}\noperations  {}\n",
        status.pid,
        status.version,
        status.build_id,
        status.socket,
        status.log,
        status.vms,
        status.operations
    )
}
