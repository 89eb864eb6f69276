//! `banger kernel delete`.

use crate::commands::image::delete::all;
use crate::context::Context;
use crate::errors::Failure;

/// Delete kernels that no VM boots.
///
///   banger kernel delete debian-cloud
///   banger kernel list
///
/// If a kernel has several names, only the given name is removed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "KERNEL")]
    pub kernels: Vec<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    all(context, &args.kernels, async |kernel| client.delete_kernel(kernel).await).await
}
