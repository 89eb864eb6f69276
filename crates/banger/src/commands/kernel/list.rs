//! `banger kernel list`.

use banger_api::exit;
use banger_api::images::KernelView;
use banger_api::size::human_size;

use crate::commands::image::list::or_dash;
use crate::context::{Context, Format, Volume};
use crate::errors::Failure;
use crate::render::table::{Align, table};
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
    match (context.format, context.volume) {
        (Format::Json, _) => context.json(&kernels)?,
        (Format::Text, Volume::Quiet) => {
            let ids = kernels.iter().map(|kernel| format!("{}\n", kernel.id));
            context.print(&ids.collect::<String>())?;
        }
        (Format::Text, _) => context.print(&text(&kernels))?,
    }
    Ok(exit::OK)
}

fn text(kernels: &[KernelView]) -> String {
    use Align::{Left, Right};
    let head = [
        ("NAME", Left),
        ("ID", Left),
        ("RELEASE", Left),
        ("SIZE", Right),
        ("USED BY", Right),
        ("SOURCE", Left),
        ("CREATED", Left),
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
    table(&head, &kernels.iter().map(row).collect::<Vec<_>>())
}
