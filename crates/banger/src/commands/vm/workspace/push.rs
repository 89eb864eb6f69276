//! `banger vm workspace push`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use banger_api::exit;
use banger_workspace::push::PushOptions;
use banger_workspace::summary::changed;
use serde_json::json;

use super::status::{letter, text};
use super::{machine, with_workspace};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;

/// Send changes of this host's repository to the machine.
///
///   banger vm workspace push web
///   banger vm workspace push web --force main.c  replaces the machine's
///
/// Files that only this host has changed are sent. Nothing is sent if a file was
/// changed on both sides, unless `--force` names it. The machine's index and history
/// stay as they are.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Replace this file of the machine, which has changed it too; its path begins at the top of
    /// the repository
    #[arg(long, value_name = "PATH")]
    pub force: Vec<OsString>,
    /// Also send files that are neither tracked nor ignored, now and later
    #[arg(long)]
    pub include_untracked: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let vm = machine(&client, &args.vm).await?;
    let options = PushOptions {
        force: args.force.into_iter().map(OsString::into_vec).collect(),
        include_untracked: args.include_untracked,
    };
    let pushed = with_workspace(context, &client, &vm, "push", move |workspace, machine| {
        workspace.push(&machine, &options)
    })
    .await?;
    if context.format == Format::Json {
        context.json(&json!({ "changed": changed(&pushed) }))?;
    } else if pushed.is_empty() {
        context.print("this host has no changes\n")?;
    } else {
        let lines = pushed.iter().map(|change| {
            plain::line(&format!("{} {}", letter(change.effect()), text(&change.path))) + "\n"
        });
        context.print(&lines.collect::<String>())?;
    }
    Ok(exit::OK)
}
