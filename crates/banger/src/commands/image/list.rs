//! `banger image list`.

use banger_api::exit;
use banger_api::images::ImageView;
use banger_api::size::human_size;

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::table::{Column, table};
use crate::render::time::ago;

/// Show all images.
///
///   banger image list
///   banger image list -q            ids only
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let images = context.client().await?.images().await?;
    match (context.format, context.verbosity) {
        (Format::Json, _) => context.json(&images)?,
        (Format::Text, Verbosity::Quiet) => {
            let ids = images.iter().map(|image| format!("{}\n", image.id));
            context.print(&ids.collect::<String>())?;
        }
        (Format::Text, _) => context.print(&text(&images))?,
    }
    Ok(exit::OK)
}

fn text(images: &[ImageView]) -> String {
    let columns = [
        Column::long_text("NAME", 0, 12),
        Column::text("ID", 1),
        Column::number("SIZE", 3),
        Column::number("USED BY", 4),
        Column::long_text("SOURCE", 5, 12),
        Column::text("CREATED", 2),
    ];
    let row = |image: &ImageView| {
        vec![
            or_dash(&image.names),
            image.id.to_string(),
            human_size(image.used_bytes),
            image.used_by.len().to_string(),
            image.source.clone(),
            ago(&image.created_at),
        ]
    };
    table(&columns, &images.iter().map(row).collect::<Vec<_>>())
}

/// Names in one cell.
pub fn or_dash(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}
