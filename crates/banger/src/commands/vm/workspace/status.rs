//! `banger vm workspace status`.

use banger_api::exit;
use banger_api::operation::VmTag;
use banger_workspace::compare::{Change, Comparison, Effect};
use banger_workspace::guest::{Left, MAX_COMMITS};
use banger_workspace::summary::{Summary, short_branch};
use banger_workspace::workspace::Status;

use super::{machine, with_workspace};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;

/// Show what changed since the repository was put in the machine.
///
///   banger vm workspace status web
///   banger vm workspace status web --json
///
/// Files that look the same on both sides again are not listed. `vm workspace diff`
/// shows what the machine's changes are, `pull` brings them here, `push` sends
/// changes of this host.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let vm = machine(&client, &args.vm).await?;
    let (summary, status) =
        with_workspace(context, &client, &vm, "compare", |workspace, machine| {
            let status = workspace.status(&machine)?;
            Ok((Summary::new(workspace.record(), &status), status))
        })
        .await?;
    let (repository, folder) = (&summary.repository, &summary.folder);
    if context.format == Format::Json {
        context.json(&WithVm { vm, summary })?;
        return Ok(exit::OK);
    }
    let mut lines = vec![format!("{repository} <-> {}:{folder}", vm.name)];
    lines.extend(described(&status));
    let lines: Vec<String> = lines.iter().map(|line| plain::line(line)).collect();
    context.print(&(lines.join("\n") + "\n"))?;
    Ok(exit::OK)
}

/// A summary with the machine that it is about.
#[derive(serde::Serialize)]
struct WithVm {
    vm: VmTag,
    #[serde(flatten)]
    summary: Summary,
}

fn described(status: &Status) -> Vec<String> {
    let Status { guest, changes, .. } = status;
    let mut lines = Vec::new();
    if !guest.commits.is_empty() {
        let branch = guest.branch.as_deref().map_or("a detached HEAD".to_owned(), short_branch);
        lines.push(format!("commits in the machine, on {branch}"));
        for commit in guest.commits.iter().take(MAX_COMMITS) {
            let id = commit.id.get(..12).unwrap_or(&commit.id);
            lines.push(format!("  {id} {}", text(&commit.subject)));
        }
        if guest.commits.len() > MAX_COMMITS {
            lines.push("  ... and earlier ones".to_owned());
        }
    }
    let Comparison { guest: there, host: here, conflicts } = changes;
    let changed = |lines: &mut Vec<String>, title: &str, changes: &[Change]| {
        lines.extend((!changes.is_empty()).then(|| title.to_owned()));
        lines.extend(
            changes
                .iter()
                .map(|change| format!("  {} {}", letter(change.effect()), text(&change.path))),
        );
    };
    changed(&mut lines, "changed in the machine", there);
    changed(&mut lines, "changed on this host", here);
    if !conflicts.is_empty() {
        lines.push("changed on both sides".to_owned());
        lines.extend(conflicts.iter().map(|path| format!("  C {}", text(path))));
    }
    if !guest.left.is_empty() {
        lines.push("left in the machine".to_owned());
        let one = |left: &Left| format!("  - {}: {}", text(&left.path), left.why);
        lines.extend(guest.left.iter().map(one));
    }
    if changes.is_equal() {
        lines.push("the files of both sides are the same".to_owned());
    }
    lines
}

/// Its letter.
pub(super) fn letter(effect: Effect) -> char {
    match effect {
        Effect::Added => 'A',
        Effect::Modified => 'M',
        Effect::Deleted => 'D',
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
