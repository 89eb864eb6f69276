//! `banger agent install`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_agents::{Agent, Change, Workspace};
use banger_api::vm::VmDetails;
use banger_api::{ApiError, Hint, exit};
use banger_workspace::origin::Origin;

use super::hook::program;
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::{plain, warning};
use crate::repository::store_folder;

/// Make the shell commands of a coding agent run in a machine.
///
///   banger agent install claude . --vm web
///   banger agent install codex --vm web --guest /srv/app
///   banger agent install claude --uninstall
///
/// It writes into the folder that the agent works in: a hook or a plugin that
/// rewrites each command of the agent's shell tool to `banger exec`, and a skill
/// that tells the agent about the machine. Files are shown before they are written,
/// and `--uninstall` takes exactly that away. If the machine is gone, commands
/// fail; they do not run on this host instead. Files that the agent edits itself
/// are those of this host.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The agent: claude, opencode or codex
    #[arg(value_name = "AGENT", value_parser = super::parse)]
    pub agent: Agent,
    /// Folder that the agent works in [default: .]
    #[arg(value_name = "PATH", default_value = ".", hide_default_value = true)]
    pub path: PathBuf,
    /// Name or id of the machine [default: that of the variable BANGER_VM]
    #[arg(long, env = "BANGER_VM", hide_env = true, required_unless_present = "uninstall")]
    pub vm: Option<String>,
    /// The folder in the machine [default: the one that `banger run PATH` or `--sync` made of it,
    /// else /root/NAME]
    #[arg(long, value_name = "DIR")]
    pub guest: Option<String>,
    /// Remove what was installed
    #[arg(long, conflicts_with = "guest")]
    pub uninstall: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let top = super::folder(&args.path)?;
    let plan = match (&args.vm, args.uninstall) {
        (_, true) => banger_agents::uninstall(args.agent, &top)?,
        (None, false) => return Err(usage("name the machine: `--vm NAME`").into()),
        (Some(vm), false) => {
            // A machine that is there, under the name that it has.
            let details = context.client().await?.vm(vm).await?;
            let guest = match &args.guest {
                Some(guest) => guest.clone(),
                None => guest_folder(context, &details, &top)?,
            };
            let vm = details.summary.name.to_string();
            if !guest.starts_with('/') {
                return Err(usage(format!("`{guest}` is not an absolute path")).into());
            }
            let workspace = Workspace { host: top.clone(), vm, guest };
            banger_agents::install(args.agent, &workspace, &program()?)?
        }
    };
    if plan.changes.is_empty() {
        context.info(&format!("nothing to change for {}", args.agent));
        return report(context, &args, &plan.changes);
    }
    if context.format == Format::Text {
        plan.changes.iter().try_for_each(|change| context.print(&shown(change)))?;
    }
    if !args.yes {
        if !context.can_prompt() {
            let hint = Hint::text("`--yes` writes it without asking");
            return Err(usage("nothing was written: there is nobody to ask")
                .with_hint(hint)
                .into());
        }
        if !context.confirm("Write this?").await? {
            return Ok(exit::FAILED);
        }
    }
    plan.make()?;
    if let (Agent::Codex, false) = (args.agent, args.uninstall) {
        context.info(
            "codex asks at its next start whether to trust the hook: until then it is not run",
        );
    }
    report(context, &args, &plan.changes)
}

/// The folder of the machine that has the files of this one, by what is on record; otherwise the
/// one that it would have.
fn guest_folder(context: &Context, vm: &VmDetails, top: &Path) -> Result<String, ApiError> {
    let summary = &vm.summary;
    let sent = Origin::of(&store_folder(context, &summary.id)?)?;
    let sent = sent.map(|origin| (origin.path, origin.folder));
    let live = vm.sync.iter().map(|live| {
        let folder = &live.folder;
        (folder.host.as_path().to_owned(), folder.guest.as_bytes().to_vec())
    });
    let mapped = sent.into_iter().chain(live).find_map(|(host, guest)| {
        let below = top.strip_prefix(host).ok()?;
        let guest = Path::new(OsStr::from_bytes(&guest)).join(below);
        // Without a slash at its end.
        guest.components().collect::<PathBuf>().into_os_string().into_string().ok()
    });
    if let Some(guest) = mapped {
        return Ok(guest);
    }
    let name = top.file_name().and_then(|name| name.to_str()).unwrap_or("workspace");
    let guest = format!("/root/{name}");
    warning(&format!(
        "`{}` got nothing of `{}` from banger: commands will run in `{guest}` there, if it has \
         that; `--guest DIR` names another folder",
        summary.name,
        top.display()
    ));
    Ok(guest)
}

fn report(context: &Context, args: &Args, changes: &[Change]) -> Result<u8, Failure> {
    if context.format == Format::Json {
        let paths: Vec<String> = changes.iter().map(|c| c.path.display().to_string()).collect();
        let installed = !args.uninstall;
        let value = serde_json::json!({
            "agent": args.agent.as_str(), "installed": installed, "changed": paths,
        });
        context.json(&value)?;
    }
    Ok(exit::OK)
}

/// A change as lines that are added and removed.
fn shown(change: &Change) -> String {
    let what = match (&change.before, &change.after) {
        (None, _) => "new",
        (_, None) => "removed",
        _ => "changed",
    };
    let (before, after) = (lines(change.before.as_deref()), lines(change.after.as_deref()));
    let mut text = format!("{} ({what})\n", plain::line(&change.path.display().to_string()));
    for line in before.iter().filter(|line| !after.contains(line)) {
        text += &format!("  - {}\n", plain::line(line));
    }
    for line in after.iter().filter(|line| !before.contains(line)) {
        text += &format!("  + {}\n", plain::line(line));
    }
    text
}

fn lines(text: Option<&str>) -> Vec<&str> {
    text.unwrap_or_default().lines().collect()
}
