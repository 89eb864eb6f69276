//! `banger vm workspace pull`.

use banger_api::operation::VmTag;
use banger_api::{Hint, exit};
use banger_client::Client;
use banger_workspace::Workspace;
use banger_workspace::fetch::Limits;
use banger_workspace::guest::Left;
use banger_workspace::pull::{Fetched, Form, Which};
use banger_workspace::summary::changed;
use serde_json::json;

use super::status::text;
use super::{machine, on_workspace, open, with_workspace};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::{plain, warning};

/// Bring the machine's changes to the repository of this host.
///
///   banger vm workspace pull web                shows what would change, and asks
///   banger vm workspace pull web --yes          does not ask
///   banger vm workspace pull web --branch work  commits on a new branch instead
///
/// Files of the work tree change, the index and the history do not. Nothing is
/// changed if a file was changed on both sides. With `--branch` the work tree stays:
/// the new branch has the machine's commits, and one more for what is not committed
/// there.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Do not ask
    #[arg(short, long, conflicts_with = "branch")]
    pub yes: bool,
    /// Put commits and uncommitted changes on a new branch of this repository
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let vm = machine(&client, &args.vm).await?;
    if let Some(name) = args.branch {
        return branch(context, &client, &vm, name).await;
    }
    let workspace = open(context, &vm).await?;
    let (workspace, fetched) =
        on_workspace(context, &client, &vm, (workspace, "pull"), |workspace, machine| {
            workspace.fetch(&machine, &Limits::default(), Which::Own)
        })
        .await?;
    report_left(&fetched.status.guest.left);
    let changes = fetched.status.changes.guest.clone();
    let has_conflicts = !fetched.status.changes.conflicts.is_empty();
    if changes.is_empty() && !has_conflicts {
        return nothing(context);
    }
    // With conflicts it fails and names them.
    if !has_conflicts {
        show(context, &workspace, &fetched)?;
        let folder = workspace.record().repository.display().to_string();
        if !args.yes && !may_change(context, &folder).await? {
            context.info("nothing was changed");
            return Ok(exit::FAILED);
        }
    }
    // To the end: Ctrl-C must not leave a part of the files changed.
    let pulling = tokio::task::spawn_blocking(move || {
        let mut workspace = workspace;
        workspace.pull(&fetched, &|| {})
    });
    pulling
        .await
        .map_err(|error| usage("a thread of this program has failed").caused_by(&error))??;
    if context.format == Format::Json {
        context.json(&json!({ "changed": changed(&changes) }))?;
    } else {
        let files = if changes.len() == 1 { "file" } else { "files" };
        context.print(&format!("{} {files} changed\n", changes.len()))?;
    }
    Ok(exit::OK)
}

/// Prints what would change.
fn show(context: &Context, workspace: &Workspace, fetched: &Fetched) -> Result<(), Failure> {
    if context.format == Format::Json {
        return Ok(());
    }
    let mut stat = Vec::new();
    workspace.write(fetched, Form::Stat, &mut stat)?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let lines = stat.lines().map(|line| plain::line(line) + "\n");
    context.print(&lines.collect::<String>())
}

/// Asks whether files in this folder may be changed.
async fn may_change(context: &Context, folder: &str) -> Result<bool, Failure> {
    if context.format == Format::Json || !context.can_prompt() {
        let error =
            usage("`pull` asks before it changes files, and there is no terminal to ask on");
        return Err(error.with_hint(Hint::text("`--yes` does not ask")).into());
    }
    context.confirm(&plain::line(&format!("change these files in `{folder}`?"))).await
}

/// Makes a branch of the machine's changes.
async fn branch(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    name: String,
) -> Result<u8, Failure> {
    let (asked, vm_name) = (name.clone(), vm.name.to_string());
    let made = with_workspace(context, client, vm, "pull", move |workspace, machine| {
        workspace.branch(&machine, &Limits::default(), &asked, &vm_name)
    })
    .await?;
    report_left(&made.left);
    if context.format == Format::Json {
        context.json(&json!({
            "branch": name,
            "id": made.id,
            "commits": made.commits,
            "has_uncommitted": made.has_uncommitted,
        }))?;
        return Ok(exit::OK);
    }
    let more = if made.has_uncommitted { " and one of uncommitted changes" } else { "" };
    let id = made.id.get(..12).unwrap_or(&made.id);
    let commits = if made.commits == 1 { "commit" } else { "commits" };
    let count = made.commits;
    let line = format!("branch {name} at {id}: {count} {commits} of `{}`{more}", vm.name);
    context.print(&(plain::line(&line) + "\n"))?;
    Ok(exit::OK)
}

fn nothing(context: &Context) -> Result<u8, Failure> {
    if context.format == Format::Json {
        context.json(&json!({ "changed": [] }))?;
    } else {
        context.print("the machine has no changes\n")?;
    }
    Ok(exit::OK)
}

fn report_left(left: &[Left]) {
    for Left { path, why, .. } in left {
        warning(&format!("`{}` stays in the machine: it {why}", text(path)));
    }
}
