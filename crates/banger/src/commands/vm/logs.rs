//! `banger vm logs`.

use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_client::{VmLogQuery, VmLogSource};
use jiff::Timestamp;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::log::{self, Lines};
use crate::render::since::Since;
use crate::values;

/// Show the log of the guest console, banger's agent, the VMM or banger-shim.
///
///   banger vm logs web
///   banger vm logs web -f           continue until the VM is deleted
///   banger vm logs web --tail 20    the last 20 lines
///   banger vm logs web --vmm
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// The log.
    #[command(flatten)]
    pub source: Source,
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
    ///
    /// Only for a log whose lines have times: that of Firecracker.
    #[arg(long, value_name = "TIME", value_parser = values::since, allow_hyphen_values = true)]
    pub since: Option<Timestamp>,
}

/// The log: one of these, the console by default.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct Source {
    /// The guest's serial console (the default)
    #[arg(long)]
    pub console: bool,
    /// The lines of banger's agent in the console log
    #[arg(long)]
    pub agent: bool,
    /// The log of the VMM and its companion
    #[arg(long)]
    pub vmm: bool,
    /// The log of banger-shim, the process that owns the VMM
    #[arg(long)]
    pub shim: bool,
}

impl Source {
    fn wanted(&self) -> VmLogSource {
        match self {
            Self { agent: true, .. } => VmLogSource::Agent,
            Self { vmm: true, .. } => VmLogSource::Vmm,
            Self { shim: true, .. } => VmLogSource::Shim,
            _ => VmLogSource::Console,
        }
    }
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let Args { vm, source, follow, tail, since } = args;
    let query = VmLogQuery { source: source.wanted(), tail, follow };
    let lines = match context.format {
        Format::Text => Lines::Plain,
        Format::Json => Lines::Objects,
    };
    let log = context.client().await?.vm_logs(&vm, query).await?;
    if log::show(log, lines, since.map(Since::new)).await? {
        return Ok(exit::OK);
    }
    let text = format!("the lines of this log of `{vm}` have no times");
    let hint = Hint::text("leave out --since; --tail selects a number of lines");
    Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(hint).into())
}
