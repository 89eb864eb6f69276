//! `banger vm start|stop|restart|kill|delete|repair`: one action on any number of VMs.

use std::io::Write;

use banger_api::vm::{ActionOptions, VmAction};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::batch::{self, Target, Words, Work};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::progress::Keep;
use crate::values;

/// Start VMs that are stopped.
///
///   banger vm start web
///   banger vm start web db
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct StartArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
}

/// Stop VMs: the guest is asked to shut down, and killed after a grace period.
///
///   banger vm stop web
///   banger vm stop --timeout 60 web db
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct StopArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Seconds to wait before it is killed [default: 10]
    #[arg(
        short, long, value_name = "SECONDS", value_parser = values::grace_ms,
        allow_hyphen_values = true
    )]
    pub timeout: Option<u64>,
}

/// Stop VMs and start them again; those that are stopped are started.
///
///   banger vm restart web
///   banger vm restart --timeout 60 web
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RestartArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Seconds to wait before it is killed [default: 10]
    #[arg(
        short, long, value_name = "SECONDS", value_parser = values::grace_ms,
        allow_hyphen_values = true
    )]
    pub timeout: Option<u64>,
}

/// Stop VMs at once, as if their power was cut. What the guest has not written is lost.
///
///   banger vm kill web
///   banger vm kill web db
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct KillArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
}

/// Delete VMs with their disks.
///
///   banger vm delete web
///   banger vm delete -f web db      without asking, running ones too
///
/// On a terminal it asks first. A VM that is not stopped is only deleted with `-f`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DeleteArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Do not ask, and kill what runs
    #[arg(short, long)]
    pub force: bool,
}

/// Bring broken VMs back to stopped, by finishing what could not be undone.
///
///   banger vm repair web
///   banger vm show web              says what is wrong
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RepairArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
}

fn work(action: VmAction, done: &'static str, already: &'static str, keep: Keep) -> Work {
    let words = Words { done, already };
    Work { action, options: ActionOptions::default(), words, keep }
}

async fn act(context: &Context, vms: &[String], work: Work) -> Result<u8, Failure> {
    let client = context.client().await?;
    let targets = batch::resolve(&client.vms().await?, vms);
    batch::run(context, &client, targets, &work).await
}

/// Runs `vm start`.
pub async fn start(context: &Context, args: StartArgs) -> Result<u8, Failure> {
    let work = work(VmAction::Start, "started", "runs already", Keep::All);
    act(context, &args.vms, work).await
}

/// Runs `vm stop`.
pub async fn stop(context: &Context, args: StopArgs) -> Result<u8, Failure> {
    let mut work = work(VmAction::Stop, "stopped", "was stopped already", Keep::None);
    work.options.grace_ms = args.timeout;
    act(context, &args.vms, work).await
}

/// Runs `vm restart`.
pub async fn restart(context: &Context, args: RestartArgs) -> Result<u8, Failure> {
    let mut work = work(VmAction::Restart, "restarted", "runs already", Keep::All);
    work.options.grace_ms = args.timeout;
    act(context, &args.vms, work).await
}

/// Runs `vm kill`.
pub async fn kill(context: &Context, args: KillArgs) -> Result<u8, Failure> {
    let work = work(VmAction::Kill, "killed", "was stopped already", Keep::None);
    act(context, &args.vms, work).await
}

/// Runs `vm repair`.
pub async fn repair(context: &Context, args: RepairArgs) -> Result<u8, Failure> {
    let work = work(VmAction::Repair, "repaired", "is not broken", Keep::None);
    act(context, &args.vms, work).await
}

/// Runs `vm delete`.
pub async fn delete(context: &Context, args: DeleteArgs) -> Result<u8, Failure> {
    let mut work = work(VmAction::Delete, "deleted", "is being deleted already", Keep::None);
    work.options.force = args.force;
    let client = context.client().await?;
    let targets = batch::resolve(&client.vms().await?, &args.vms);
    if !args.force && context.format == Format::Text && !agreed(context, &targets).await? {
        context.say("nothing was deleted");
        return Ok(banger_api::exit::FAILED);
    }
    batch::run(context, &client, targets, &work).await
}

/// Asks, where somebody can answer and there is something to ask about.
async fn agreed(context: &Context, targets: &[Target]) -> Result<bool, Failure> {
    let found: Vec<&str> =
        targets.iter().filter_map(|t| t.found.as_ref().ok()).map(|vm| vm.name.as_str()).collect();
    if found.is_empty() || !context.can_ask() {
        return Ok(true);
    }
    let names = found.join(", ");
    let disks = if found.len() == 1 { "its disks" } else { "their disks" };
    write!(std::io::stderr(), "delete {names} with {disks}? [y/N] ")?;
    let mut answer = String::new();
    let mut stdin = BufReader::new(tokio::io::stdin());
    context.interrupts.or_leave(stdin.read_line(&mut answer)).await??;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
