//! `banger kernel prune`.

use banger_api::disk::StoredKind;

use crate::commands::system::prune::{How, of_kinds};
use crate::context::Context;
use crate::errors::Failure;

/// Delete the kernels that no VM uses, after showing them.
///
///   banger kernel prune --dry-run
///   banger kernel prune
///   banger kernel prune --force      without asking
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    pub how: How,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    of_kinds(context, "kernel prune", &[StoredKind::Kernel], args.how).await
}
