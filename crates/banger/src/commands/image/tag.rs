//! `banger image tag`.

use banger_api::exit;
use banger_api::images::TagRequest;

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::values;

/// Add a name to an image.
///
///   banger image tag debian base
///   banger image tag --replace 3f2a base
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub image: String,
    /// The new name
    #[arg(value_parser = values::reference)]
    pub name: String,
    /// Move the name if another image has it
    #[arg(long)]
    pub replace: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let request = TagRequest { name: args.name.clone(), replace: args.replace };
    let image = client.tag_image(&args.image, &request).await?;
    match context.format {
        Format::Json => context.json(&image)?,
        Format::Text if context.verbosity > Verbosity::Quiet => {
            context.print(&format!("{} is a name of the image {}\n", args.name, image.id))?;
        }
        Format::Text => {}
    }
    Ok(exit::OK)
}
