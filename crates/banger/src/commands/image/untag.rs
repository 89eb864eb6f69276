//! `banger image untag`.

use banger_api::exit;

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::values;

/// Remove a name of an image that has other names.
///
///   banger image untag base
///   banger image list
///
/// `banger image delete` deletes an image by its only name.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The name
    #[arg(value_parser = values::reference)]
    pub name: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let image = context.client().await?.untag_image(&args.name).await?;
    match context.format {
        Format::Json => context.json(&image)?,
        Format::Text if context.verbosity > Verbosity::Quiet => {
            let names = image.names.join(", ");
            context.print(&format!("{} removed; the image is still {names}\n", args.name))?;
        }
        Format::Text => {}
    }
    Ok(exit::OK)
}
