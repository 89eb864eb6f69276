//! `banger kernel build`.

use banger_api::exit;
use banger_api::images::KernelBuildRequest;

use crate::commands::image::pull::fetch;
use crate::commands::kernel::pull::print_kernel;
use crate::context::Context;
use crate::errors::Failure;
use crate::{follow, values};

/// Build a kernel from source.
///
///   banger kernel build fast
///   banger run --kernel fast
///
/// `fast` is Linux from Debian's package `linux-source`, with everything that a
/// VM needs built in: no module is loaded at boot. The build takes some minutes
/// of all CPUs and 4 GiB of disk space meanwhile; Ctrl-C cancels it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Recipe: fast
    #[arg(value_parser = values::reference)]
    pub name: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let request = KernelBuildRequest { name: args.name.clone() };
    let answer = follow::request(context, client.build_kernel(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    print_kernel(context, &client, &args.name, made).await?;
    Ok(exit::OK)
}
