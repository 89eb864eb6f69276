//! `banger system df`.

use banger_api::disk::{DiskUsage, Stored, StoredKind};
use banger_api::exit;
use banger_api::size::human_size;

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::table::{Column, table};

/// Show what banger stores on the disk, and what could be removed.
///
///   banger system df
///   banger system df -v             each object, and the VMs that use it
///   banger system prune
///
/// Sizes are what is really allocated. Blocks that a VM shares with its image
/// count for both where the file system shares them.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let usage = context.client().await?.disk_usage().await?;
    match (context.format, context.verbosity) {
        (Format::Json, _) => context.json(&usage)?,
        (Format::Text, Verbosity::Verbose) => context.print(&objects(&usage.objects))?,
        (Format::Text, _) => context.print(&summary(&usage))?,
    }
    Ok(exit::OK)
}

fn sum<'a>(objects: impl Iterator<Item = &'a Stored>) -> u64 {
    objects.map(|object| object.used_bytes).fold(0, u64::saturating_add)
}

fn summary(usage: &DiskUsage) -> String {
    let columns = [
        Column::text("KIND", 0),
        Column::number("COUNT", 2),
        Column::number("SIZE", 0),
        Column::number("REMOVABLE", 1),
    ];
    let row = |name: &str, of: &dyn Fn(&&Stored) -> bool| {
        let all = || usage.objects.iter().filter(of);
        let removable = human_size(sum(all().filter(|object| object.removable)));
        vec![name.to_owned(), all().count().to_string(), human_size(sum(all())), removable]
    };
    let mut rows: Vec<_> = StoredKind::ALL
        .into_iter()
        .map(|kind| row(kind.plural(), &|object| object.kind == kind))
        .collect();
    rows.push(row("all", &|_| true));
    let free = human_size(usage.free_bytes);
    format!("{}free: {free}\n", table(&columns, &rows))
}

/// One line for each object.
pub fn objects(objects: &[Stored]) -> String {
    let columns = [
        Column::text("KIND", 1),
        Column::long_text("NAME", 0, 12),
        Column::number("SIZE", 0),
        Column::long_text("USED BY", 2, 8),
    ];
    let row = |object: &Stored| {
        let kind = object.kind.plural().trim_end_matches('s').to_owned();
        let users = match object.used_by.as_slice() {
            [] => "-".to_owned(),
            users => users.join(", "),
        };
        vec![kind, object.label(), human_size(object.used_bytes), users]
    };
    table(&columns, &objects.iter().map(row).collect::<Vec<_>>())
}
