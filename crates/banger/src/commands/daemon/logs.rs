//! `banger daemon logs`.

use std::io::Write;

use banger_api::hint::Kind;
use banger_api::vm::VmSummary;
use banger_api::{ApiError, ErrorCode, Hint, OpId, exit};
use banger_client::{DaemonLogQuery, LogPiece};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::daemon_log;
use crate::render::since::Since;
use crate::values;

/// Show the daemon's log: time, VM, verb, stage and duration.
///
///   banger daemon logs -f           continue, also across restarts of the daemon
///   banger daemon logs --since 10m  lines of the last 10 minutes
///   banger daemon logs --vm web     lines about one VM
///   banger daemon logs --op op-abc123
///
/// With --json each line is a JSON object.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Continue with new lines
    #[arg(short, long)]
    pub follow: bool,
    /// Start with the last N lines
    #[arg(
        short = 'n', long, value_name = "N", value_parser = values::lines,
        allow_hyphen_values = true
    )]
    pub tail: Option<u32>,
    /// Only lines since a time: an age, such as 10m, or a time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = values::since, allow_hyphen_values = true)]
    pub since: Option<Timestamp>,
    /// Only lines about this VM: its name or id
    #[arg(long, value_name = "VM")]
    pub vm: Option<String>,
    /// Only lines of this operation
    #[arg(long, value_name = "OPERATION")]
    pub op: Option<OpId>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let Args { follow, tail, since, vm, op: operation } = args;
    let of_vm = vm.clone();
    let only = operation.as_ref().map(OpId::to_string);
    let query = DaemonLogQuery { vm, operation: only, tail, follow };
    let client = context.client().await?;
    let mut log = client.daemon_logs(query).await?;
    let zone = TimeZone::system();
    let mut rest = Vec::new();
    let mut empty = tail != Some(0);
    let mut since = since.map(Since::new);
    while let Some(piece) = log.next().await? {
        let piece = match piece {
            LogPiece::Bytes(piece) => piece,
            LogPiece::DaemonEnded => {
                context.info("the daemon has ended; its log continues when the next one starts");
                continue;
            }
        };
        empty &= piece.is_empty();
        rest.extend_from_slice(&piece);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lines: Vec<u8> = rest.drain(..whole).collect();
        if let Some(since) = &mut since {
            lines = since.select(&lines);
        }
        let mut out = std::io::stdout().lock();
        match context.format {
            Format::Json => out.write_all(&lines)?,
            Format::Text => {
                for line in String::from_utf8_lossy(&lines).lines() {
                    out.write_all(daemon_log::text(line, &zone).as_bytes())?;
                }
            }
        }
        out.flush()?;
    }
    match (empty, of_vm, operation) {
        (true, Some(vm), _) => in_no_line(&client.vms().await?, &vm)?,
        // The error for an operation that does not exist.
        (true, None, Some(operation)) => drop(client.operation(&operation).await?),
        _ => {}
    }
    Ok(exit::OK)
}

/// An error unless a VM of that name or id exists: deleted VMs have lines, so a name without any is
/// a mistake.
fn in_no_line(listing: &[VmSummary], vm: &str) -> Result<(), ApiError> {
    if listing.iter().any(|listed| listed.name.as_str() == vm || listed.id.as_str() == vm) {
        return Ok(());
    }
    let text = format!("the log has no line about a VM `{vm}`");
    let error = ApiError::new(ErrorCode::NotFound, text);
    Err(error.with_hint(Hint::List { what: Kind::Vm }))
}
