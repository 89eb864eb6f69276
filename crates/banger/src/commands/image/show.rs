//! `banger image show`.

use banger_api::exit;
use banger_api::images::{ImageSignature, ImageView};
use banger_api::size::human_size;

use crate::commands::image::list::or_dash;
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;
use crate::render::time::ago;

/// Show everything about one image.
///
///   banger image show debian
///   banger image show debian --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub image: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let image = context.client().await?.image(&args.image).await?;
    match context.format {
        Format::Json => context.json(&image)?,
        Format::Text => context.print(&text(&image))?,
    }
    Ok(exit::OK)
}

fn or(known: Option<String>) -> String {
    known.unwrap_or_else(|| "unknown".to_owned())
}

fn signature(found: Option<&ImageSignature>) -> String {
    match found {
        Some(ImageSignature { scheme, key, signed }) => {
            format!("{}, key {key}, of {signed}", scheme.as_str())
        }
        None => "none verified".to_owned(),
    }
}

fn text(image: &ImageView) -> String {
    let init = image.init.as_deref().unwrap_or("none: the agent is its init");
    let rows = [
        ("names", or_dash(&image.names)),
        ("id", image.id.to_string()),
        ("source", image.source.clone()),
        ("made from", image.provenance.clone()),
        ("signature", signature(image.signature.as_ref())),
        ("system", or(image.system.clone())),
        ("packages", or(image.packages.map(|count| count.to_string()))),
        ("created", format!("{} ({})", ago(&image.created_at), image.created_at)),
        ("size", human_size(image.virtual_bytes)),
        ("takes", human_size(image.used_bytes)),
        ("init", init.to_owned()),
        ("used by", or_dash(&image.used_by)),
        ("fingerprint", image.fingerprint.clone()),
    ];
    rows.iter().map(|(name, value)| format!("{name:<13}{}\n", plain::line(value))).collect()
}
