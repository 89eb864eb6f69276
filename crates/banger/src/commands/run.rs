//! `banger run`, `banger vm run`: a machine, and a shell or a command in it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use banger_api::boot::WaitFor;
use banger_api::operation::{Accepted, VmTag};
use banger_api::vm::{Lifetime, VmAction};
use banger_api::{ApiError, ErrorCode, VmName};
use banger_client::follow::OnInterrupt;
use banger_client::{Client, Detached, ExecRequest, Hold};

use crate::attach::Guest;
use crate::commands::{exec, vm};
use crate::context::{Context, Format};
use crate::errors::{self, Failure, usage};
use crate::follow;
use crate::inside;
use crate::render::progress::{Lines, Progress};
use crate::render::stderr_is_live;
use crate::terminal::{self, Wanted};
use crate::values::Machine;
use crate::waiting::{self, CommandWait};

/// Make a machine and open a shell or run a command in it, whose exit code is ours.
///
///   banger run                    a machine and a shell in it
///   banger run --rm uname -a      one command; the machine is gone afterwards
///   banger run -d --name web      a machine that runs in the background
///   banger run -d --rm CMD        one with a command, deleted when it is stopped
///
/// Without `--rm` the machine stays: `banger vm list` shows it, `banger vm delete`
/// removes it. Flags of banger stand before the command.
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
    /// Flags about the command.
    #[command(flatten)]
    pub inside: inside::Inside,
    /// Return (with `-d`) or run the command when the guest agent answers, the guest is ready, or
    /// its init has booted: agent, ready or booted [default: ready with -d, else booted]
    #[arg(long, value_name = "STAGE")]
    pub wait: Option<WaitFor>,
    /// Flags about the machine.
    #[command(flatten)]
    pub machine: Machine,
    /// The command with its arguments [default: a shell]
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    refuse_folder(&args.command, &std::env::args_os().collect::<Vec<_>>())?;
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
    // At once: the daemon waits only a while for a holder of the VM.
    let hold = match request.lifetime {
        Lifetime::Session => hold(&client, &vm).await?,
        Lifetime::Keep | Lifetime::UntilStopped => None,
    };
    let track = progress(context, &inside).track(vm.name.as_str());
    let followed = follow::accepted(context, &client, &accepted, track, OnInterrupt::Cancel);
    if let Err(failure) = waiting::started(&client, vm.id.as_str(), args.wait, followed).await {
        not_reached(context, &client, &vm, request.lifetime, &failure).await?;
        if let Some(hold) = hold {
            hold.release().await;
        }
        return Err(failure);
    }
    let ended = match &inside {
        Inside::Nothing => {
            waiting::after_start(context, &client, vm.name.as_str(), args.wait).await?;
            return vm::create::show_made(context, &client, &vm).await;
        }
        Inside::Background(request) => {
            start_in_background(context, &client, &vm, request).await?;
            return vm::create::show_made(context, &client, &vm).await;
        }
        Inside::Session(request) => session(context, &client, &vm, args.wait, request).await,
    };
    match hold {
        Some(hold) => {
            let removed = remove(context, &client, &vm, hold).await;
            // The result of the command outranks that of the removal.
            let code = ended?;
            removed.map(|()| code)
        }
        None => {
            vm::shell::say_still_running(context, &client, &vm).await;
            ended
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

/// An answer without the VM it is about.
pub fn no_vm() -> ApiError {
    ApiError::new(ErrorCode::DaemonUnavailable, "the daemon did not say which VM it makes")
}

/// Refuses a folder of this host in place of a command, unless it stands behind `--`.
fn refuse_folder(command: &[OsString], arguments: &[OsString]) -> Result<(), ApiError> {
    let Some(path) = command.first() else { return Ok(()) };
    // The command reaches to the end of the command line, so what stands before it is known.
    let before = arguments.len().checked_sub(command.len() + 1);
    let escaped = before.and_then(|place| arguments.get(place)).map(OsString::as_os_str);
    let is_path = matches!(path.as_bytes().first(), Some(b'.' | b'/'));
    if !is_path || escaped == Some(OsStr::new("--")) || !Path::new(path).is_dir() {
        return Ok(());
    }
    let path = path.display();
    let text = format!("`{path}` is a folder: this version does not put repositories in machines");
    Err(usage(text).with_hint(format!(
        "`tar c -C {path} . | banger exec -i -w /root VM tar x` copies it into a machine; to run \
         `{path}` as a command: `banger run -- {path}`"
    )))
}

/// What runs in the machine.
enum Inside {
    /// Nothing of ours.
    Nothing,
    /// A command without a client.
    Background(ExecRequest),
    /// A command or shell on our streams.
    Session(ExecRequest),
}

fn what_to_run(context: &Context, args: &Args) -> Result<Inside, Failure> {
    let shell = args.command.is_empty();
    if args.detach && shell {
        return Ok(Inside::Nothing);
    }
    if args.detach {
        return Ok(Inside::Background(args.inside.request(args.command.clone())));
    }
    if shell && context.format == Format::Json {
        let text = "a shell cannot be shown as JSON: add `-d`, or a command";
        return Err(usage(text).into());
    }
    if shell && !args.interactive && !args.tty && !terminal::is_interactive() {
        return Err(usage("a shell needs a terminal or input, and this is neither")
            .with_hint("`-d` leaves the machine running, `-i` passes input on, `-- CMD` runs CMD")
            .into());
    }
    let mut request = args.inside.request(args.command.clone());
    request.stdin = args.interactive;
    // A bare `run` is a shell on this terminal.
    let wanted = match (args.tty, shell && !args.interactive) {
        (true, _) => Wanted::Flag,
        (false, true) => Wanted::Shell,
        (false, false) => return Ok(Inside::Session(request)),
    };
    inside::with_terminal(context, request, wanted).map(Inside::Session)
}

/// On a terminal the time until the machine was ready has a line; in a file that takes the standard
/// error of the command only what takes long.
fn progress(context: &Context, inside: &Inside) -> Progress {
    let command = matches!(inside, Inside::Session(request) if !request.argv.is_empty());
    Progress::new(context, if command && !stderr_is_live() { Lines::Fetches } else { Lines::Ready })
}

async fn session(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    wait: Option<WaitFor>,
    inside: &ExecRequest,
) -> Result<u8, Failure> {
    let wait = CommandWait { wait };
    let stream = waiting::connection(context, client, vm.name.as_str(), wait).await?;
    let guest = Guest { client, vm: vm.name.as_str() };
    exec::attached(context, stream, inside, &guest).await
}

/// Starts a command that goes on without us, and says where its output is.
async fn start_in_background(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    request: &ExecRequest,
) -> Result<(), Failure> {
    let name = &vm.name;
    let start = client.detach(vm.id.as_str(), request);
    let said = match context.interrupts.or_leave(start).await? {
        Ok(Detached::Running { pid, log: Some(log) }) => {
            format!("the command runs as process {pid}, its output is in `{log}` of `{name}`")
        }
        Ok(Detached::Running { pid, log: None }) => {
            format!("the command runs as process {pid}, its output is discarded")
        }
        Ok(Detached::NotStarted { message, .. }) => {
            let error = ApiError::new(ErrorCode::NotFound, message);
            return Err(error.with_hint(still_running(name)).into());
        }
        Err(error) if error.hints.is_empty() => {
            return Err(error.with_hint(still_running(name)).into());
        }
        Err(error) => return Err(error.into()),
    };
    context.say(&said);
    Ok(())
}

fn still_running(vm: &VmName) -> String {
    format!("`{vm}` runs without the command; `banger vm delete -f {vm}` removes it")
}

/// The machine did not come up. One that was cancelled or is not to stay is removed, any other is
/// kept for a look.
async fn not_reached(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    lifetime: Lifetime,
    failure: &Failure,
) -> Result<(), Failure> {
    match failure {
        Failure::Cancelled(_) => delete(context, client, vm).await,
        Failure::Api(_) if lifetime == Lifetime::Keep => {
            vm::create::say_kept(context, client, vm).await;
            Ok(())
        }
        Failure::Api(_) => {
            // The reason of the failed start is what the user needs to know.
            if let Err(Failure::Api(error)) = delete(context, client, vm).await {
                errors::show(context, &error);
            }
            Ok(())
        }
        Failure::Left => {
            vm::create::abandon(client, vm).await;
            Ok(())
        }
        Failure::Pipe => Ok(()),
    }
}

/// Deletes the machine and waits until it is gone, so that nothing is left when we return.
async fn remove(context: &Context, client: &Client, vm: &VmTag, hold: Hold) -> Result<(), Failure> {
    let removed = delete(context, client, vm).await;
    hold.release().await;
    removed
}

/// Deletes a VM in whatever state; one that is gone already is as good.
pub async fn delete(context: &Context, client: &Client, vm: &VmTag) -> Result<(), Failure> {
    let accepted: Accepted =
        match client.act(vm.id.as_str(), VmAction::Delete { force: true }).await {
            Ok(accepted) => accepted,
            Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
    let track = Progress::new(context, Lines::None).track(vm.name.as_str());
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
    let accepted = match client.act(vm.id.as_str(), VmAction::Delete { force: true }).await {
        Ok(accepted) => accepted,
        Err(again) if again.code == ErrorCode::NotFound => return Ok(()),
        Err(again) => {
            errors::show(context, &error);
            return Err(again.into());
        }
    };
    let track = Progress::new(context, Lines::None).track(vm.name.as_str());
    follow::accepted(context, client, &accepted, track, OnInterrupt::GoOn).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_command_unless_it_is_escaped() {
        let refused = |line: &str, words: usize| {
            let all: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            refuse_folder(&all[all.len() - words..], &all).is_err()
        };
        assert!(refused("banger run .", 1));
        assert!(refused("banger run . -- true", 3));
        assert!(refused("banger run --rm /usr", 1));
        assert!(refused("banger run ../", 1));
        assert!(!refused("banger run -- .", 1));
        assert!(!refused("banger run -- /usr x", 2));
        assert!(!refused("banger run uname .", 2));
        assert!(!refused("banger run /bin/sh", 1));
        assert!(!refused("banger run ./not-there", 1));
        assert!(!refused("banger run src", 1));
        assert!(!refused("banger run", 0));
    }
}
