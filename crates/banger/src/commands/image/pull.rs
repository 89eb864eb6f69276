//! `banger image pull`, and fetching in general.

use banger_api::exit;
use banger_api::images::ImagePullRequest;
use banger_api::operation::Accepted;
use banger_client::Client;
use banger_client::follow::OnInterrupt;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::follow;
use crate::render::progress::{Lines, Progress};
use crate::values;

/// Make an image by a built-in recipe.
///
///   banger image pull debian
///   banger image pull --refresh debian     again, with today's packages
///
/// `debian` is a Debian 12 to work in. `banger run` makes it by itself.
/// An image of the same recipe stays as it is unless `--refresh` is given.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Recipe
    #[arg(value_parser = values::reference)]
    pub name: String,
    /// Make it anew even if there is one of the same recipe
    #[arg(long)]
    pub refresh: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let accepted = {
        let request = ImagePullRequest { name: args.name.clone(), refresh: args.refresh };
        client.pull_image(&request).await?
    };
    let made = fetch(context, &client, &args.name, &accepted).await?;
    match (context.format, made) {
        (Format::Json, Some(id)) => context.json(&client.image(&id).await?)?,
        (Format::Json, None) => context.json(&client.image(&args.name).await?)?,
        (Format::Text, made) => print_made(context, &args.name, made)?,
    }
    Ok(exit::OK)
}

/// Follows a fetch to its end; gives the id of what it made.
pub async fn fetch(
    context: &Context,
    client: &Client,
    name: &str,
    accepted: &Accepted,
) -> Result<Option<String>, Failure> {
    let track = Progress::new(context, Lines::Total).track(name);
    let done = follow::accepted(context, client, accepted, track, OnInterrupt::Cancel).await?;
    Ok(done.made)
}

/// Prints the id of what was made, or the name where it was there already.
pub fn print_made(context: &Context, name: &str, made: Option<String>) -> Result<(), Failure> {
    context.print(&format!("{}\n", made.as_deref().unwrap_or(name)))
}
