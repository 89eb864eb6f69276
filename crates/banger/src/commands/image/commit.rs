//! `banger image commit`.

use banger_api::exit;
use banger_api::images::ImageCommitRequest;

use crate::commands::image::pull::{fetch, print_made};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::{follow, values};

/// Make an image of the root disk of a stopped VM.
///
///   banger stop web
///   banger image commit web web-base
///   banger run --image web-base
///
/// The machine id, host keys, caches, logs, shell histories and temporary files
/// are left out. So is the work disk: /root in the image is as in the image
/// that the VM was made from. The VM stays as it is.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Name of the new image
    #[arg(value_parser = values::reference)]
    pub name: String,
    /// Move the name if another image has it
    #[arg(long)]
    pub replace: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let request =
        ImageCommitRequest { vm: args.vm, name: args.name.clone(), replace: args.replace };
    let client = context.client().await?;
    let answer = follow::request(context, client.commit_image(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    match context.format {
        Format::Json => context.json(&client.image(&args.name).await?)?,
        Format::Text => print_made(context, &args.name, made)?,
    }
    Ok(exit::OK)
}
