//! `banger run`, `banger vm run`: a machine, and a shell or a command in it.

use std::ffi::OsString;

use banger_api::operation::{Accepted, VmTag};
use banger_api::vm::{ActionOptions, Lifetime, VmAction};
use banger_api::{ApiError, ErrorCode};
use banger_client::{Client, ExecRequest, Hold};

use crate::attach::Guest;
use crate::commands::{exec, vm};
use crate::context::{Context, Format};
use crate::errors::{self, Failure, usage};
use crate::follow::{self, OnInterrupt};
use crate::render::progress::{Keep, Progress, Track};
use crate::render::stderr_is_live;
use crate::terminal;
use crate::values::Machine;

/// Make a machine and open a shell in it, or run one command; its exit code is ours.
///
///   banger run                       a machine and a shell in it
///   banger run --rm -- uname -a      one command; the machine is gone afterwards
///   banger run -d --name web         a machine that runs in the background
///
/// Without `--rm` the machine stays: `banger vm list` shows it, `banger vm delete` removes it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Delete the machine at the end, whatever the exit code
    #[arg(long)]
    pub rm: bool,
    /// Leave it running in the background
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal, input included
    #[arg(short, long)]
    pub tty: bool,
    /// What the machine is to be.
    #[command(flatten)]
    pub machine: Machine,
    /// A repository to work on in the machine: refused with a hint until it can be done
    #[arg(value_name = "PATH", hide = true)]
    pub path: Option<String>,
    /// The command [default: a shell]
    #[arg(value_name = "CMD", last = true, conflicts_with = "detach")]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut request = args.machine.request();
    request.lifetime = match (args.rm, args.detach) {
        (false, _) => Lifetime::Keep,
        (true, false) => Lifetime::Session,
        (true, true) => Lifetime::UntilStopped,
    };
    request.check()?;
    let inside = what_to_run(context, &args)?;
    let client = context.client().await?;
    let accepted = client.create(&request).await?;
    let vm = accepted.vm.clone().ok_or_else(no_vm)?;
    // At once: the daemon waits only a while for somebody to hold on to it.
    let hold = match request.lifetime {
        Lifetime::Session => Some(client.hold(&vm.id).await?),
        Lifetime::Keep | Lifetime::UntilStopped => None,
    };
    let track = progress(context, inside.as_ref()).track(vm.name.as_str());
    if let Err(failure) =
        follow::accepted(context, &client, &accepted, track, OnInterrupt::Cancel).await
    {
        return not_reached(context, &client, &vm, hold, failure).await;
    }
    let Some(inside) = inside else { return detached(context, &client, &vm).await };
    let ended = session(context, &client, &vm, &inside).await;
    match hold {
        Some(hold) => {
            let removed = remove(context, &client, &vm, hold).await;
            // What the command had to say outranks what became of its machine.
            let code = ended?;
            removed.map(|()| code)
        }
        None => {
            vm::shell::say_still_running(context, &client, &vm).await;
            ended
        }
    }
}

/// An answer without the VM it is about.
pub fn no_vm() -> ApiError {
    ApiError::new(ErrorCode::DaemonUnavailable, "the daemon did not say which VM it makes")
}

/// What is to run inside; none for a machine in the background.
fn what_to_run(context: &Context, args: &Args) -> Result<Option<ExecRequest>, Failure> {
    if let Some(path) = &args.path {
        let text = format!("`{path}`: working on a repository is not part of this version");
        return Err(usage(text)
            .with_hint(format!("to run `{path}` as a command: `banger run -- {path}`"))
            .into());
    }
    if args.detach {
        return Ok(None);
    }
    let shell = args.command.is_empty();
    if shell && context.format == Format::Json {
        let text = "a shell cannot be shown as JSON: add `-d`, or a command behind `--`";
        return Err(usage(text).into());
    }
    if shell && !args.interactive && !args.tty && !terminal::is_interactive() {
        return Err(usage("a shell needs a terminal or input, and this is neither")
            .with_hint("`-d` leaves the machine running, `-i` passes input on, `-- CMD` runs CMD")
            .into());
    }
    // A bare `run` is a shell on this terminal.
    let tty = args.tty || (shell && !args.interactive);
    let request = ExecRequest {
        argv: args.command.iter().cloned().map(Into::into).collect(),
        stdin: args.interactive,
        ..ExecRequest::default()
    };
    exec::with_terminal(context, request, tty).map(Some)
}

/// Where somebody watches, every stage is worth a line; into a file that is to hold what the
/// command says on stderr, only what takes long.
fn progress(context: &Context, inside: Option<&ExecRequest>) -> Progress {
    let command = inside.is_some_and(|request| !request.argv.is_empty());
    Progress::new(context, if command && !stderr_is_live() { Keep::Fetches } else { Keep::All })
}

async fn session(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    inside: &ExecRequest,
) -> Result<u8, Failure> {
    let connection = client.agent_connection(vm.id.as_str());
    let stream = context.interrupts.or_leave(connection).await??;
    let guest = Guest { client, vm: vm.name.as_str() };
    exec::attached(context, stream, inside, &guest).await
}

async fn detached(context: &Context, client: &Client, vm: &VmTag) -> Result<u8, Failure> {
    vm::create::show_made(context, client, vm).await
}

/// The machine did not come up: what was cancelled is removed, what failed is kept to be looked at.
async fn not_reached(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    hold: Option<Hold>,
    failure: Failure,
) -> Result<u8, Failure> {
    match &failure {
        Failure::Cancelled(_) => vm::create::remove_cancelled(context, client, vm).await?,
        Failure::Api(_) => vm::create::say_kept(context, client, vm).await,
        Failure::Left => vm::create::abandon(client, vm).await,
        Failure::Pipe => {}
    }
    if let Some(hold) = hold {
        hold.release().await;
    }
    Err(failure)
}

/// Deletes the machine and waits until it is gone, so that nothing is left when we return.
async fn remove(context: &Context, client: &Client, vm: &VmTag, hold: Hold) -> Result<(), Failure> {
    let removed = delete(context, client, vm, Keep::None).await;
    hold.release().await;
    removed
}

/// Deletes a VM in whatever state; one that is gone already is as good.
pub async fn delete(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    keep: Keep,
) -> Result<(), Failure> {
    let options = ActionOptions { force: true, ..ActionOptions::default() };
    let accepted: Accepted = match client.act(vm.id.as_str(), VmAction::Delete, &options).await {
        Ok(accepted) => accepted,
        Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let track: Track = Progress::new(context, keep).track(vm.name.as_str());
    match follow::accepted(context, client, &accepted, track, OnInterrupt::GoOn).await {
        Ok(_) => Ok(()),
        Err(Failure::Api(error)) if error.code == ErrorCode::NotFound => Ok(()),
        Err(Failure::Api(error)) if error.code == ErrorCode::Interrupted => {
            // The daemon was restarted in the middle; its successor finishes it or is asked again.
            gone_or(context, client, vm, *error).await
        }
        Err(failure) => Err(failure),
    }
}

async fn gone_or(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    error: ApiError,
) -> Result<(), Failure> {
    let options = ActionOptions { force: true, ..ActionOptions::default() };
    let accepted = match client.act(vm.id.as_str(), VmAction::Delete, &options).await {
        Ok(accepted) => accepted,
        Err(again) if again.code == ErrorCode::NotFound => return Ok(()),
        Err(again) => {
            errors::show(context, &error);
            return Err(again.into());
        }
    };
    let track = Progress::new(context, Keep::None).track(vm.name.as_str());
    follow::accepted(context, client, &accepted, track, OnInterrupt::GoOn).await.map(|_| ())
}
