//! `banger vm logs`.

use std::path::Path;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::log::{self, Follow, Lines};

/// Show the guest console log, or the log of the VMM.
///
///   banger vm logs web
///   banger vm logs web -f           and go on as more comes
///   banger vm logs web --tail 20    the last 20 lines
///   banger vm logs web --vmm
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// The guest's serial console (the default)
    #[arg(long, conflicts_with = "vmm")]
    pub console: bool,
    /// The log of the VMM and its companion
    #[arg(long)]
    pub vmm: bool,
    /// Go on as more comes
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<usize>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let vm = context.client().await?.vm(&args.vm).await?;
    let path = if args.vmm { &vm.paths.vmm_log } else { &vm.paths.console_log };
    let follow = if args.follow { Follow::Yes } else { Follow::No };
    let lines = match context.format {
        Format::Text => Lines::AsTheyAre,
        Format::Json => Lines::Objects,
    };
    log::show(Path::new(path), follow, lines, args.tail).await
}
