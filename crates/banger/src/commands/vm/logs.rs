//! `banger vm logs`.

use std::path::Path;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::log::{self, Follow, Lines};

/// Show what a guest said on its console, or what its VMM said.
///
///   banger vm logs web
///   banger vm logs web -f           and go on as more comes
///   banger vm logs web --vmm
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// The guest's serial console (the default)
    #[arg(long, conflicts_with = "vmm")]
    pub console: bool,
    /// What the VMM and its companion said
    #[arg(long)]
    pub vmm: bool,
    /// Go on as more comes
    #[arg(short, long)]
    pub follow: bool,
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
    log::show(Path::new(path), follow, lines).await
}
