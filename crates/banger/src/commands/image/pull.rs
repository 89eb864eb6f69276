//! `banger image pull`, and the progress of downloads.

use banger_api::exit;
use banger_api::images::ImagePullRequest;
use banger_api::operation::Accepted;
use banger_client::Client;
use banger_client::follow::{Interrupts, OnInterrupt};

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::follow;
use crate::render::progress::{Lines, Progress};
use crate::values;

/// Pull an image from a registry, or create one from a built-in recipe.
///
///   banger image pull ghcr.io/acme/app:1
///   banger image pull alpine:3.23          from docker.io
///   banger image pull debian-dev           a recipe: docs/images.md lists them
///   banger image pull --refresh debian     again, with today's packages
///
/// `banger run --image` pulls an image with a host, folder or tag if needed.
/// Names of signed catalogs and rules for signatures: docs/trust.md.
/// Logins are those of `docker login`. Layers that are here are not downloaded again.
/// An existing image of the same recipe is kept unless `--refresh` is given.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Image as [HOST/]REPOSITORY[:TAG|@DIGEST], or a recipe
    #[arg(value_name = "IMAGE", value_parser = values::image)]
    pub name: String,
    /// Create it again even if an image of the same recipe exists
    #[arg(long)]
    pub refresh: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let request = ImagePullRequest { name: args.name.clone(), refresh: args.refresh };
    let answer = follow::request(context, client.pull_image(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    match (context.format, made) {
        (Format::Json, Some(id)) => context.json(&client.image(&id).await?)?,
        (Format::Json, None) => context.json(&client.image(&args.name).await?)?,
        (Format::Text, made) => print_made(context, &args.name, made)?,
    }
    Ok(exit::OK)
}

/// Follows an operation on an image or kernel to its end; returns the id of a new one.
pub async fn fetch(
    context: &Context,
    client: &Client,
    name: &str,
    (accepted, interrupts): (Accepted, Interrupts),
) -> Result<Option<String>, Failure> {
    let track = Progress::new(context, Lines::Total).track(name);
    let done =
        follow::accepted(client, (&accepted, interrupts), track, OnInterrupt::Cancel).await?;
    Ok(done.made)
}

/// Prints the id of a new image or kernel, or the name of an existing one.
pub fn print_made(context: &Context, name: &str, made: Option<String>) -> Result<(), Failure> {
    context.print(&format!("{}\n", made.as_deref().unwrap_or(name)))
}
