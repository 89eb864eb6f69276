//! `banger daemon logs`.

use crate::context::Context;
use crate::errors::Failure;
use crate::render::log::{self, Follow, Lines};

/// Show the daemon's log: one JSON object a line.
///
///   banger daemon logs
///   banger daemon logs -f           and go on as more comes
///   banger daemon logs | grep op-abc123
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Go on as more comes
    #[arg(short, long)]
    pub follow: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let path = context.paths()?.daemon_log();
    let follow = if args.follow { Follow::Yes } else { Follow::No };
    // It is written as JSON, so `--json` has nothing to change.
    log::show(&path, follow, Lines::AsTheyAre, None).await
}
