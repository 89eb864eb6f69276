//! `banger image history`.

use banger_api::exit;
use banger_api::images::ImageHistoryEntry;
use banger_api::size::human_size;

use crate::commands::image::list::or_dash;
use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::table::{Column, table};
use crate::render::time::ago;

/// Show an image and the images it was made from.
///
///   banger image history web
///
/// The newest comes first. An image that was deleted since is shown by its id
/// and the name that it had. `banger image show` tells all about each.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub image: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let chain = context.client().await?.image_history(&args.image).await?;
    match (context.format, context.verbosity) {
        (Format::Json, _) => context.json(&chain)?,
        (Format::Text, Verbosity::Quiet) => {
            let ids = chain.iter().map(|entry| format!("{}\n", entry.id));
            context.print(&ids.collect::<String>())?;
        }
        (Format::Text, _) => context.print(&text(&chain))?,
    }
    Ok(exit::OK)
}

fn text(chain: &[ImageHistoryEntry]) -> String {
    let columns = [
        Column::text("ID", 0),
        Column::long_text("NAME", 2, 12),
        Column::text("CREATED", 3),
        Column::number("SIZE", 4),
        Column::long_text("MADE FROM", 1, 12),
    ];
    let row = |entry: &ImageHistoryEntry| {
        let (created, size, source) = match &entry.image {
            Some(image) => {
                (ago(&image.created_at), human_size(image.used_bytes), image.source.clone())
            }
            None => ("-".to_owned(), "-".to_owned(), "deleted".to_owned()),
        };
        vec![entry.id.to_string(), or_dash(&entry.names), created, size, source]
    };
    table(&columns, &chain.iter().map(row).collect::<Vec<_>>())
}
