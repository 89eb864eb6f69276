//! `banger run` of an image without an init: the program of the machine.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use banger_api::boot::WaitFor;
use banger_api::events::{About, EventKind, VmNow};
use banger_api::operation::VmTag;
use banger_api::program::{ProgramRequest, booted_init};
use banger_api::vm::VmState;
use banger_api::{ApiError, ByteString, ErrorCode, Hint, exit};
use banger_client::{Client, ExecRequest};

use crate::attach::{Guest, SessionEnd};
use crate::commands::exec;
use crate::commands::run::Args;
use crate::commands::workload::Workload;
use crate::context::Context;
use crate::errors::{Failure, usage};
use crate::ssh_agent::SshAgent;
use crate::waiting::{self, CommandWait};

/// Time for a machine to stop after its program has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest program with its arguments and variables, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// What the command line changes of the program that the image names.
///
/// # Errors
/// An entry point with too many bytes of arguments and variables.
pub fn request(args: &Args, workload: &Workload) -> Result<ProgramRequest, ApiError> {
    let attach = matches!(workload, Workload::Attached(_) | Workload::Program(..));
    let words = match workload {
        Workload::None | Workload::Opencode => args.options.request(Vec::new())?,
        Workload::Detached(request)
        | Workload::Attached(request)
        | Workload::Program(request, _) => request.clone(),
    };
    let entrypoint = args.entrypoint.clone().map(ByteString::from);
    if bytes(&words) > MAX_BYTES {
        // A command of a machine with an init may be longer.
        return match entrypoint {
            Some(_) => Err(usage("the arguments and variables of the program are too long")),
            None => Ok(ProgramRequest { attach, ..ProgramRequest::default() }),
        };
    }
    let variable = |(name, value): &(ByteString, ByteString)| {
        let mut text = OsString::from(name.as_os_str());
        text.push(OsStr::new("="));
        text.push(value.as_os_str());
        ByteString::from(text)
    };
    Ok(ProgramRequest {
        entrypoint,
        replace_entrypoint: args.agent.is_some(),
        command: args.command.iter().cloned().map(ByteString::from).collect(),
        env: words.env.iter().map(variable).collect(),
        cwd: words.cwd,
        // An agent is root's unless the command line says otherwise, as its login is.
        user: words.user.or_else(|| args.agent.map(|_| "root".to_owned())),
        attach,
    })
}

fn bytes(request: &ExecRequest) -> usize {
    let arguments = request.argv.iter().map(|word| word.as_bytes().len());
    let variables = request.env.iter().map(|(n, v)| n.as_bytes().len() + v.as_bytes().len());
    arguments.chain(variables).sum()
}

/// Refuses an image that is here and has no program, before a machine is made of it.
///
/// # Errors
/// `error`, or one of the daemon.
pub async fn refuse_init(client: &Client, args: &Args, error: &ApiError) -> Result<(), Failure> {
    let Some(name) = &args.machine.image else { return Ok(()) };
    let image = match client.image(name).await {
        Ok(image) => image,
        // It may be pulled.
        Err(missing) if missing.code == ErrorCode::NotFound => return Ok(()),
        Err(failed) => return Err(failed.into()),
    };
    let entrypoint = args.entrypoint.is_some();
    let init = booted_init(image.init.as_deref(), image.config.as_ref(), entrypoint);
    let has_program = entrypoint || image.config.is_some();
    // An entry point for an image with an init is an error of its own.
    if (init.is_some() && !entrypoint) || !has_program {
        return Err(error.clone().into());
    }
    Ok(())
}

/// Whether a machine runs a program instead of an init.
///
/// # Errors
/// Those of the daemon.
pub async fn is_run(client: &Client, vm: &VmTag) -> Result<bool, ApiError> {
    match client.vm(vm.id.as_str()).await {
        Ok(details) => Ok(details.program.is_some()),
        // With `--rm` it is deleted as soon as its program has ended.
        Err(error) if error.code == ErrorCode::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The end of what ran on the streams of this process, with its exit code.
pub enum AttachedEnd {
    /// The program of the machine ended.
    Program(u8),
    /// A command ended, or this process left its session.
    Session(u8),
}

impl AttachedEnd {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Program(code) | Self::Session(code) => *code,
        }
    }
}

/// Runs the program of the machine, or else the command, on the streams of this process.
///
/// # Errors
/// The machine has no program, where only that can run; the session is lost.
pub async fn attached(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    wait: Option<WaitFor>,
    (workload, agent): (Workload, &SshAgent),
) -> Result<AttachedEnd, Failure> {
    let runs_program = is_run(client, vm).await?;
    let mut request = match workload {
        Workload::Program(_, error) if !runs_program => return Err(error.into()),
        Workload::Program(request, _) | Workload::Attached(request) => request,
        Workload::None | Workload::Detached(_) | Workload::Opencode => {
            return Ok(AttachedEnd::Session(exit::OK));
        }
    };
    request.program = runs_program;
    let stream =
        waiting::connection(context, client, vm.name.as_str(), CommandWait { wait }).await?;
    if runs_program && agent.is_wanted() {
        return Err(no_agent(vm).into());
    }
    let _forwarding = agent.forward(client, vm.id.as_str(), &mut request).await?;
    let guest = Guest { client, vm: vm.name.as_str() };
    let ended = exec::to_end(context, stream, &request, &guest).await?;
    let code = ended.code();
    Ok(match ended {
        SessionEnd::Exited(_) if runs_program => AttachedEnd::Program(code),
        _ => AttachedEnd::Session(code),
    })
}

/// The variables of the machine's program are those of its creation.
fn no_agent(vm: &VmTag) -> ApiError {
    let text =
        "`--ssh-agent` is for commands: the program of a machine does not end with a session";
    let hint = format!("`banger exec --ssh-agent {} -- CMD` runs a command beside it", vm.name);
    usage(text).with_hint(Hint::text(hint))
}

/// Waits until a machine has stopped after the end of its program.
pub async fn stopped(client: &Client, vm: &VmTag) {
    let is_over = |now: &VmNow| matches!(now.state, VmState::Stopped | VmState::Broken);
    let wait = async {
        let mut events = client.events(Some(About::Vms), None).await?;
        loop {
            let over = match events.next().await?.what {
                EventKind::All { vms, .. } => {
                    vms.iter().find(|now| now.id == vm.id).is_none_or(is_over)
                }
                EventKind::Changed { vm: now } => now.id == vm.id && is_over(&now),
                EventKind::Gone { vm: gone } => gone == vm.id,
                EventKind::Operation { .. } => false,
            };
            if over {
                return Ok::<_, ApiError>(());
            }
        }
    };
    // The exit code is known; the machine is shown as it is.
    let _ = tokio::time::timeout(STOP_TIMEOUT, wait).await;
}
