//! `banger daemon logs`.

use std::io::Write;

use banger_api::exit;
use banger_client::DaemonLogQuery;
use jiff::tz::TimeZone;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::daemon_log;

/// Show the daemon's log: time, VM, verb, stage and duration.
///
///   banger daemon logs --tail 50
///   banger daemon logs -f           continue until the daemon ends
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
    #[arg(short = 'n', long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub tail: Option<u32>,
    /// Only lines about this VM: its name or id
    #[arg(long, value_name = "VM")]
    pub vm: Option<String>,
    /// Only lines of this operation
    #[arg(long, value_name = "OPERATION")]
    pub op: Option<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let Args { follow, tail, vm, op: operation } = args;
    let query = DaemonLogQuery { vm, operation, tail, follow };
    let mut log = context.client().await?.daemon_logs(query).await?;
    let zone = TimeZone::system();
    let mut rest = Vec::new();
    while let Some(piece) = log.next().await? {
        rest.extend_from_slice(&piece);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
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
    Ok(exit::OK)
}
