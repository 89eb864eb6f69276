//! `banger system prune`, and the removal of unused images and kernels.

use std::io::Write;

use banger_api::disk::{DiskPrune, Stored, StoredKind, StoredRef};
use banger_api::size::human_size;
use banger_api::{Hint, exit};

use super::df;
use crate::context::{Context, Format};
use crate::errors::{self, Failure, usage};

/// Remove what banger stores and nothing uses, after showing it.
///
///   banger system prune --dry-run
///   banger system prune
///   banger system prune --all       unused images and kernels, too
///
/// These are downloaded layers and other files that are made again when they are
/// needed, logs of VMs that are gone, and what an interrupted pull or import has
/// left. VMs stay: `banger vm prune`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Remove also images and kernels that no VM uses
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub how: How,
}

/// How to remove.
#[derive(Debug, clap::Args)]
pub struct How {
    /// Only show what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let all = StoredKind::ALL.into_iter();
    let kinds: Vec<_> = all.filter(|kind| kind.is_pruned(args.all)).collect();
    of_kinds(context, "system prune", &kinds, args.how).await
}

/// Removes unused objects of these kinds; `command` is named in errors.
pub async fn of_kinds(
    context: &Context,
    command: &str,
    kinds: &[StoredKind],
    how: How,
) -> Result<u8, Failure> {
    let can_ask = context.format == Format::Text && context.can_prompt();
    if !how.force && !how.dry_run && !can_ask {
        let text = format!("`{command}` asks on a terminal before it removes, and there is none");
        let hint = Hint::text("--force removes without asking, --dry-run only shows");
        return Err(usage(text).with_hint(hint).into());
    }
    let client = context.client().await?;
    let mut due = client.disk_usage().await?.objects;
    due.retain(|object| object.removable && kinds.contains(&object.kind));
    let total = human_size(due.iter().map(|object| object.used_bytes).fold(0, u64::saturating_add));
    if how.dry_run {
        match context.format {
            Format::Json => context.json(&due)?,
            Format::Text if due.is_empty() => context.info("nothing to remove"),
            Format::Text => {
                context.print(&df::objects(&due))?;
                context.info(&format!("this would free {total}"));
            }
        }
        return Ok(exit::OK);
    }
    if due.is_empty() && context.format == Format::Text {
        context.info("nothing to remove");
        return Ok(exit::OK);
    }
    if !how.force {
        write!(std::io::stderr(), "{}", df::objects(&due))?;
        if !context.confirm(&format!("remove this, {total}?")).await? {
            context.info("nothing was removed");
            return Ok(exit::FAILED);
        }
    }
    let reference = |object: &Stored| StoredRef { kind: object.kind, id: object.id.clone() };
    let prune = DiskPrune { objects: due.iter().map(reference).collect() };
    let pruned = client.prune_disk(&prune).await?;
    let failed: Vec<_> = pruned.objects.iter().filter_map(|object| object.error.as_ref()).collect();
    let code = if failed.is_empty() { exit::OK } else { exit::FAILED };
    match context.format {
        Format::Json => context.json(&pruned)?,
        Format::Text => {
            for error in failed {
                errors::show(context, error);
            }
            context.info(&format!("freed {}", human_size(pruned.freed_bytes)));
        }
    }
    Ok(code)
}
