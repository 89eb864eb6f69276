//! `banger run`, `banger vm run`: a machine, and a shell or a command in it.

use std::ffi::OsString;
use std::path::PathBuf;

use banger_agents::Agent;
use banger_api::boot::WaitFor;
use banger_api::operation::{Accepted, VmTag};
use banger_api::vm::{Lifetime, VmAction};
use banger_api::{ApiError, ErrorCode};
use banger_client::follow::OnInterrupt;
use banger_client::{Client, Hold};

use crate::cli;
use crate::command_options;
use crate::commands::program::{self, AttachedEnd};
use crate::commands::vm;
use crate::commands::workload::{self, Workload};
use crate::commands::{agent, equip, inside, opencode};
use crate::context::Context;
use crate::errors::{self, Failure, usage};
use crate::follow;
use crate::render::progress::{Lines, Progress};
use crate::render::stderr_is_live;
use crate::repository::{self, Content};
use crate::ssh_agent::SshAgent;
use crate::sync_options;
use crate::values::Machine;
use crate::waiting;

/// Create a machine, run a shell or a command in it and return its exit code.
///
///   banger run                    a machine and a shell in it
///   banger run --rm uname -a      one command; the machine is deleted afterwards
///   banger run . --rm -- make     the same with this repository in the machine
///   banger run -d --name web      a machine that runs in the background
///
/// Without `--rm` the machine stays: `banger vm list` shows it, `banger vm delete`
/// removes it. Flags of banger must precede the command. A folder that begins
/// with `.` or `/` is a git repository, which is put in the machine; `--copy`
/// puts any folder there.
///
/// A container image without an init runs its entry point with its command, which
/// CMD replaces, and the machine ends with it. Any other image boots its init, and
/// CMD is one more command in the machine. `banger image show` tells which.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Delete the machine at the end, whatever the exit code; with `-d`, when it stops
    #[arg(long, conflicts_with = "autostart")]
    pub rm: bool,
    /// Leave it running in the background
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Forward standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Use a terminal, which includes input
    #[arg(short, long)]
    pub tty: bool,
    /// Options of the command.
    #[command(flatten)]
    pub options: command_options::CommandOptions,
    /// Return (with `-d`) or run the command when the guest agent answers, the guest is ready, or
    /// its init has booted: agent, ready or booted [default: ready with -d, else booted]
    #[arg(long, value_name = "STAGE")]
    pub wait: Option<WaitFor>,
    /// What is sent of a folder.
    #[command(flatten)]
    pub sending: repository::Sending,
    /// Attach the opencode of this host to that of the machine, which needs an image with opencode
    #[arg(long, conflicts_with_all = ["interactive", "tty", "entrypoint"])]
    pub opencode: bool,
    /// Run a coding agent in the machine, with its login of this host: claude, opencode or codex
    ///
    /// Arguments of the agent follow `--`. The machine needs the agent's program.
    #[arg(
        long, value_name = "AGENT", value_parser = agent::parse,
        conflicts_with_all = ["opencode", "entrypoint"]
    )]
    pub agent: Option<Agent>,
    /// Run PROG instead of the entry point and the command of a container image without an init
    #[arg(long, value_name = "PROG")]
    pub entrypoint: Option<OsString>,
    /// Specification of the machine.
    #[command(flatten)]
    pub machine: Machine,
    /// The command with its arguments [default: a shell]
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let Some(path) = repository::folder_of(&args.command, &words) else {
        repository::refuse_missing(&args.command, &words)?;
        args.sending.refuse_without_folder()?;
        return machine(context, args, None).await;
    };
    // Flags may follow the folder.
    let words = repository::without_folder(&args.command, &words)?;
    let parsed = match cli::parse(&words, None) {
        Ok(parsed) => parsed,
        Err(code) => return Ok(code),
    };
    let context = &Context::new(&parsed.global);
    let (cli::Command::Run(mut args) | cli::Command::Vm(vm::Command::Run(mut args))) =
        parsed.command
    else {
        return Err(usage("the command line is not one of `banger run`").into());
    };
    let content = Content::prepare(&path, &args.sending).await?;
    if args.sending.dry_run {
        content.show(context).await?;
        return Ok(banger_api::exit::OK);
    }
    if args.options.workdir.is_none() && !inside::is_root(args.options.user.as_deref()) {
        return Err(inside::refuse_user(args.options.user.as_deref(), content.folder()).into());
    }
    // A live folder brings them.
    if !args.machine.sync.sync.iter().any(|live| *live.guest.as_path() == *content.folder()) {
        content.report_left_out(context);
    }
    args.options.workdir.get_or_insert_with(|| content.folder().into());
    machine(context, args, Some(content)).await
}

async fn machine(
    context: &Context,
    mut args: Args,
    content: Option<Content>,
) -> Result<u8, Failure> {
    // What follows are its arguments.
    drop(args.command.splice(0..0, args.agent.map(|agent| agent.as_str().into())));
    let agent = SshAgent::of_environment(args.options.ssh_agent)?;
    if args.detach && agent.is_wanted() {
        let text = "`--ssh-agent` lasts as long as a session, and `-d` has none";
        return Err(usage(text).into());
    }
    let mut request = args.machine.request()?;
    request.lifetime = match (args.rm, args.detach) {
        (false, _) => Lifetime::Keep,
        (true, false) => Lifetime::Session,
        (true, true) => Lifetime::UntilStopped,
    };
    let workload = workload::workload(context, &args)?;
    let folder = content.as_ref().map(|content| content.folder().to_owned());
    request.program = Some(program::request(&args, &workload)?);
    request.agent_login = inside::login_of_root(args.agent, args.options.user.as_deref());
    request.check()?;
    let shared = match &folder {
        Some(folder) => sync_options::take_shared(&mut request.sync, folder),
        None => Vec::new(),
    };
    let client = context.client().await?;
    if let Workload::Program(_, error) = &workload {
        program::refuse_init(&client, &args, error).await?;
    }
    if args.opencode {
        opencode::check_image(&client, args.machine.image.as_deref()).await?;
    }
    let (accepted, interrupts) = follow::request(context, client.create(&request)).await?;
    let vm = accepted.vm.clone().ok_or_else(no_vm)?;
    // At once: the daemon waits only a while for a holder of the VM.
    let hold = match request.lifetime {
        Lifetime::Session => hold(&client, &vm).await?,
        Lifetime::Keep | Lifetime::UntilStopped => None,
    };
    let track = progress(context, &workload).track(vm.name.as_str());
    let followed = follow::accepted(&client, (&accepted, interrupts), track, OnInterrupt::Cancel);
    if let Err(failure) = waiting::started(&client, vm.id.as_str(), args.wait, followed).await {
        clean_up_failed_start(context, &client, &vm, request.lifetime, &failure).await?;
        if let Some(hold) = hold {
            hold.release().await;
        }
        return Err(failure);
    }
    if let Err(error) = equip::equip(context, &client, &vm, (&args, content.as_ref(), shared)).await
    {
        match hold {
            Some(hold) => remove(context, &client, &vm, hold).await?,
            None => {
                vm::shell::report_running(context, &client, &vm).await;
                equip::report_partial(context, &vm, content.is_some());
            }
        }
        return Err(error);
    }
    let started = Started { client, vm, hold, folder };
    work(context, &args, workload, (&agent, started)).await
}

/// A machine with its content.
struct Started {
    client: Client,
    vm: VmTag,
    hold: Option<Hold>,
    /// Its folder with the content.
    folder: Option<PathBuf>,
}

/// Does in the machine what it was started for.
async fn work(
    context: &Context,
    args: &Args,
    workload: Workload,
    (agent, started): (&SshAgent, Started),
) -> Result<u8, Failure> {
    let Started { client, vm, hold, folder } = started;
    let ended = match workload {
        Workload::None => {
            if args.opencode {
                opencode::how(context, &client, &vm, folder.as_deref()).await?;
            }
            waiting::after_start(context, &client, vm.name.as_str(), args.wait).await?;
            return vm::create::show_made(context, &client, &vm).await;
        }
        Workload::Detached(request) => {
            if !program::is_run(&client, &vm).await? {
                workload::start_in_background(context, &client, &vm, &request).await?;
            }
            return vm::create::show_made(context, &client, &vm).await;
        }
        Workload::Opencode => {
            let attached = opencode::attach(context, &client, &vm, folder.as_deref()).await;
            attached.map(AttachedEnd::Session)
        }
        attached @ (Workload::Attached(_) | Workload::Program(..)) => {
            program::attached(context, &client, &vm, args.wait, (attached, agent)).await
        }
    };
    match hold {
        Some(hold) => {
            let removed = remove(context, &client, &vm, hold).await;
            // A failure of the command has priority over one of the removal.
            let code = ended?.code();
            removed.map(|()| code)
        }
        None => {
            if let Ok(AttachedEnd::Program(_)) = ended {
                program::stopped(&client, &vm).await;
            }
            vm::shell::report_running(context, &client, &vm).await;
            ended.map(|ended| ended.code())
        }
    }
}

/// Holds a machine that was just accepted; none where its creation has failed and was undone
/// already, since then the operation has the reason.
async fn hold(client: &Client, vm: &VmTag) -> Result<Option<Hold>, ApiError> {
    match client.hold(&vm.id).await {
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        held => held.map(Some),
    }
}

/// The error for an answer without the VM.
pub fn no_vm() -> ApiError {
    ApiError::new(ErrorCode::DaemonUnavailable, "the daemon's answer does not name the VM")
}

/// A terminal gets a line with the time until the machine was ready; a file, which also contains
/// the command's standard error, only lines about downloads.
fn progress(context: &Context, workload: &Workload) -> Progress {
    let command = match workload {
        Workload::Attached(request) => !request.argv.is_empty(),
        Workload::Program(..) => true,
        Workload::None | Workload::Detached(_) | Workload::Opencode => false,
    };
    Progress::new(context, if command && !stderr_is_live() { Lines::Fetches } else { Lines::Ready })
}

/// After a failed start: deletes a machine that was cancelled or is temporary, keeps any other for
/// inspection.
async fn clean_up_failed_start(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    lifetime: Lifetime,
    failure: &Failure,
) -> Result<(), Failure> {
    match failure {
        Failure::Cancelled(_) => delete(context, client, vm).await,
        Failure::Api(_) if lifetime == Lifetime::Keep => {
            vm::create::report_kept(context, client, vm).await;
            Ok(())
        }
        Failure::Api(_) => {
            // The error of the start is the result of the command.
            if let Err(Failure::Api(error)) = delete(context, client, vm).await {
                errors::show(context, &error);
            }
            Ok(())
        }
        Failure::WaitEnded => {
            vm::create::abandon(client, vm).await;
            Ok(())
        }
        Failure::BrokenPipe => Ok(()),
    }
}

/// Deletes the machine and waits until it has been deleted.
async fn remove(context: &Context, client: &Client, vm: &VmTag, hold: Hold) -> Result<(), Failure> {
    let removed = delete(context, client, vm).await;
    hold.release().await;
    removed
}

/// Deletes a VM in any state; a deleted VM is not an error.
pub async fn delete(context: &Context, client: &Client, vm: &VmTag) -> Result<(), Failure> {
    let accepted: Accepted =
        match client.act(vm.id.as_str(), VmAction::Delete { force: true }).await {
            Ok(accepted) => accepted,
            Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
    let track = Progress::new(context, Lines::None).track(vm.name.as_str());
    let interrupts = context.interrupts.listen();
    let followed = (&accepted, interrupts);
    match follow::accepted(client, followed, track, OnInterrupt::Ignore).await {
        Ok(_) => Ok(()),
        Err(Failure::Api(error)) if error.code == ErrorCode::NotFound => Ok(()),
        Err(Failure::Api(error)) if error.code == ErrorCode::Interrupted => {
            // The daemon was restarted during the deletion: the next daemon completes it or gets
            // the request again.
            delete_again(context, client, vm, *error).await
        }
        Err(failure) => Err(failure),
    }
}

async fn delete_again(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    error: ApiError,
) -> Result<(), Failure> {
    let accepted = match client.act(vm.id.as_str(), VmAction::Delete { force: true }).await {
        Ok(accepted) => accepted,
        Err(again) if again.code == ErrorCode::NotFound => return Ok(()),
        Err(again) => {
            errors::show(context, &error);
            return Err(again.into());
        }
    };
    let track = Progress::new(context, Lines::None).track(vm.name.as_str());
    let interrupts = context.interrupts.listen();
    follow::accepted(client, (&accepted, interrupts), track, OnInterrupt::Ignore).await.map(|_| ())
}
