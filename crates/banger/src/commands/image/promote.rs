//! `banger image promote`.

use banger_api::exit;

use crate::commands::image::pull::{fetch, print_made};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::follow;

/// Copy the file of a registered image into the store.
///
///   banger image promote lab
///
/// The image keeps its id, its names and its VMs, and does not need the file
/// any more. The file stays. An image that is in the store stays as it is.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub image: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let answer = follow::request(context, client.promote_image(&args.image)).await?;
    let made = fetch(context, &client, &args.image, answer).await?;
    match context.format {
        Format::Json => context.json(&client.image(&args.image).await?)?,
        Format::Text => print_made(context, &args.image, made)?,
    }
    Ok(exit::OK)
}
