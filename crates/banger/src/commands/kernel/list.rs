//! `banger kernel list`.

use banger_api::exit;
use banger_api::images::KernelView;
use banger_api::size::human_size;

use crate::commands::image::list::or_dash;
use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::table::{Column, table};
use crate::render::time::ago;

/// Show all kernels.
///
///   banger kernel list
///   banger kernel list -q           ids only
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let kernels = context.client().await?.kernels().await?;
    match (context.format, context.verbosity) {
        (Format::Json, _) => context.json(&kernels)?,
        (Format::Text, Verbosity::Quiet) => {
            let ids = kernels.iter().map(|kernel| format!("{}\n", kernel.id));
            context.print(&ids.collect::<String>())?;
        }
        (Format::Text, _) => context.print(&text(&kernels))?,
    }
    Ok(exit::OK)
}

fn text(kernels: &[KernelView]) -> String {
    let columns = [
        Column::long_text("NAME", 0, 12),
        Column::text("ID", 1),
        Column::long_text("RELEASE", 2, 12),
        Column::number("SIZE", 4),
        Column::number("USED BY", 5),
        Column::long_text("SOURCE", 6, 12),
        Column::text("CREATED", 3),
    ];
    let row = |kernel: &KernelView| {
        vec![
            or_dash(&kernel.names),
            kernel.id.to_string(),
            kernel.release.clone(),
            human_size(kernel.used_bytes),
            kernel.used_by.len().to_string(),
            kernel.source.clone(),
            ago(&kernel.created_at),
        ]
    };
    table(&columns, &kernels.iter().map(row).collect::<Vec<_>>())
}
