//! `banger kernel pull`.

use banger_api::exit;
use banger_api::images::{DEFAULT_KERNEL, KernelView, PullRequest};
use banger_client::Client;

use crate::commands::image::pull::{fetch, print_made};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::{follow, values};

/// Fetch a kernel.
///
///   banger kernel pull
///   banger kernel list
///
/// `debian-cloud` is Debian's kernel for virtual machines. `banger run` fetches
/// it if needed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Recipe [default: debian-cloud]
    #[arg(
        value_parser = values::reference, default_value = DEFAULT_KERNEL,
        hide_default_value = true
    )]
    pub name: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let request = PullRequest { name: args.name.clone() };
    let answer = follow::request(context, client.pull_kernel(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    print_kernel(context, &client, &args.name, made).await?;
    Ok(exit::OK)
}

/// Prints a kernel that was fetched or imported.
///
/// # Errors
/// The daemon's, write(2).
pub async fn print_kernel(
    context: &Context,
    client: &Client,
    name: &str,
    made: Option<String>,
) -> Result<(), Failure> {
    match context.format {
        Format::Text => print_made(context, name, made)?,
        Format::Json => {
            let kernels = client.kernels().await?;
            let is_it = |kernel: &&KernelView| match &made {
                Some(made) => *made == kernel.id.as_str(),
                None => kernel.names.iter().any(|known| known == name),
            };
            context.json(&kernels.iter().find(is_it))?;
        }
    }
    Ok(())
}
