//! `banger vm start|stop|restart|kill|pause|resume|delete|repair`: one action on any number of VMs.

use banger_api::boot::WaitFor;
use banger_api::exit;
use banger_api::vm::{DEFAULT_GRACE_MS, VmAction};
use banger_client::batch::{Target, resolve};

use crate::batch::{self, DurationDisplay, Messages};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::values;
use crate::waiting::{self, StartWait};

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
    /// Stage to wait for.
    #[command(flatten)]
    pub wait: StartWait,
}

/// Stop VMs: ask the guest to shut down, and kill it after a grace period.
///
///   banger vm stop web
///   banger vm stop --timeout 300 web db
///   banger vm kill web              ends it at once
///
/// Ctrl-C ends the wait, not the stop, which goes on in the daemon.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct StopArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Seconds that the guest has to shut down before it is killed
    #[arg(
        short, long, value_name = "SECONDS", value_parser = values::grace_ms,
        allow_hyphen_values = true
    )]
    pub timeout: Option<u64>,
}

/// Stop VMs and start them again; those that are stopped are started.
///
///   banger vm restart web
///   banger vm restart --timeout 300 web
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RestartArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Seconds that the guest has to shut down before it is killed
    #[arg(
        short, long, value_name = "SECONDS", value_parser = values::grace_ms,
        allow_hyphen_values = true
    )]
    pub timeout: Option<u64>,
    /// Stage to wait for.
    #[command(flatten)]
    pub wait: StartWait,
}

/// Stop VMs at once, as if their power was cut.
///
///   banger vm kill web
///   banger vm kill web db
///
/// What the guest has not written to its disks is lost.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct KillArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
}

/// Pause VMs: their guests stop running, and keep their memory.
///
///   banger vm pause web
///   banger vm resume web            lets the guest run again, with the clock set
///
/// Commands in a paused guest are refused; connections to its published ports wait.
/// `banger vm stop` resumes it first.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PauseArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
}

/// Resume VMs that are paused, and set their clocks.
///
///   banger vm resume web
///   banger vm resume web db
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ResumeArgs {
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

/// Bring broken VMs back to stopped: undo what is left of a failed start or stop.
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

/// Give stopped VMs fresh root disks from their images.
///
///   banger vm reset web
///   banger vm reset -f web db       without asking
///
/// Everything outside of /root is lost. The work disk with /root stays, as do name,
/// ports and labels; machine id and SSH host key are new. On a terminal it asks
/// first.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ResetArgs {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// Help for the grace period, with its default.
pub fn grace_help(argument: clap::Arg) -> clap::Arg {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    argument.help(format!("{help} [default: {}]", DEFAULT_GRACE_MS / 1000))
}

async fn act(
    context: &Context,
    vms: &[String],
    action: VmAction,
    (done, already, duration): (&'static str, &'static str, DurationDisplay),
) -> Result<u8, Failure> {
    let client = context.client().await?;
    let targets = resolve(&client.vms().await?, vms);
    let messages = Messages { done: done.into(), already: already.into(), duration };
    batch::run(context, &client, targets, action, &messages).await
}

/// Runs `vm start`.
pub async fn start(context: &Context, args: StartArgs) -> Result<u8, Failure> {
    let messages = ("started", "runs already", DurationDisplay::Show);
    let code = act(context, &args.vms, VmAction::Start {}, messages).await?;
    booted(context, &args.vms, args.wait, code).await
}

/// Waits for the boots of started VMs if `--wait booted` was given.
async fn booted(
    context: &Context,
    vms: &[String],
    wait: StartWait,
    code: u8,
) -> Result<u8, Failure> {
    // Failed starts have been reported.
    if code == exit::OK && wait.wait == Some(WaitFor::Booted) {
        let client = context.client().await?;
        for vm in vms {
            waiting::after_start(context, &client, vm, wait.wait).await?;
        }
    }
    Ok(code)
}

/// Runs `vm stop`.
pub async fn stop(context: &Context, args: StopArgs) -> Result<u8, Failure> {
    let messages = ("stopped", "was stopped already", DurationDisplay::Show);
    let grace_ms = args.timeout.unwrap_or(DEFAULT_GRACE_MS);
    act(context, &args.vms, VmAction::Stop { grace_ms }, messages).await
}

/// Runs `vm restart`.
pub async fn restart(context: &Context, args: RestartArgs) -> Result<u8, Failure> {
    let messages = ("restarted", "runs already", DurationDisplay::Show);
    let grace_ms = args.timeout.unwrap_or(DEFAULT_GRACE_MS);
    let code = act(context, &args.vms, VmAction::Restart { grace_ms }, messages).await?;
    booted(context, &args.vms, args.wait, code).await
}

/// Runs `vm kill`.
pub async fn kill(context: &Context, args: KillArgs) -> Result<u8, Failure> {
    let messages = ("killed", "was stopped already", DurationDisplay::Hide);
    act(context, &args.vms, VmAction::Kill {}, messages).await
}

/// Runs `vm pause`.
pub async fn pause(context: &Context, args: PauseArgs) -> Result<u8, Failure> {
    let messages = ("paused", "is paused already", DurationDisplay::Hide);
    act(context, &args.vms, VmAction::Pause {}, messages).await
}

/// Runs `vm resume`.
pub async fn resume(context: &Context, args: ResumeArgs) -> Result<u8, Failure> {
    let messages = ("resumed", "runs already", DurationDisplay::Hide);
    act(context, &args.vms, VmAction::Resume {}, messages).await
}

/// Runs `vm repair`.
pub async fn repair(context: &Context, args: RepairArgs) -> Result<u8, Failure> {
    let messages = ("repaired", "is not broken", DurationDisplay::Hide);
    act(context, &args.vms, VmAction::Repair {}, messages).await
}

/// Runs `vm delete`.
pub async fn delete(context: &Context, args: DeleteArgs) -> Result<u8, Failure> {
    let action = VmAction::Delete { force: args.force };
    let messages = Messages {
        done: "deleted".into(),
        already: "is being deleted already".into(),
        duration: DurationDisplay::Hide,
    };
    let client = context.client().await?;
    let targets = resolve(&client.vms().await?, &args.vms);
    let question = |names: &str, many: bool| {
        let disks = if many { "their disks" } else { "its disks" };
        format!("delete {names} with {disks}?")
    };
    if !args.force && !confirmed(context, &targets, question).await? {
        context.info("nothing was deleted");
        return Ok(exit::FAILED);
    }
    batch::run(context, &client, targets, action, &messages).await
}

/// Runs `vm reset`.
pub async fn reset(context: &Context, args: ResetArgs) -> Result<u8, Failure> {
    let messages = Messages {
        done: "has a fresh root disk".into(),
        already: "is being reset already".into(),
        duration: DurationDisplay::Hide,
    };
    let client = context.client().await?;
    let targets = resolve(&client.vms().await?, &args.vms);
    let question = |names: &str, many: bool| {
        let disk = if many { "the root disks" } else { "the root disk" };
        format!("replace {disk} of {names}? all files outside of /root will be lost")
    };
    if !args.force && !confirmed(context, &targets, question).await? {
        context.info("nothing was reset");
        return Ok(exit::FAILED);
    }
    batch::run(context, &client, targets, VmAction::Reset {}, &messages).await
}

/// Asks for confirmation on a terminal if a reference resolves to a VM. `question` receives the
/// names, and whether there are several.
async fn confirmed(
    context: &Context,
    targets: &[Target],
    question: impl Fn(&str, bool) -> String,
) -> Result<bool, Failure> {
    if context.format == Format::Json {
        return Ok(true);
    }
    let found: Vec<&str> =
        targets.iter().filter_map(|t| t.found.as_ref().ok()).map(|vm| vm.name.as_str()).collect();
    if found.is_empty() || !context.can_prompt() {
        return Ok(true);
    }
    context.confirm(&question(&found.join(", "), found.len() > 1)).await
}
