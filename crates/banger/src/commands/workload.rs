//! What a new machine runs: nothing, a command, a shell, the program of its image, or opencode.

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, Hint, VmName};
use banger_client::{Client, Detached, ExecRequest};

use crate::command_options;
use crate::commands::opencode;
use crate::commands::run::Args;
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::terminal::{self, Wanted};

/// Workload of the machine.
pub enum Workload {
    /// No command, or the program of the image without a client.
    None,
    /// A command without a client.
    Detached(ExecRequest),
    /// A command, a shell or the program of the image on the streams of this process.
    Attached(ExecRequest),
    /// The program of the image; the error if it has none.
    Program(ExecRequest, ApiError),
    /// The opencode of this host, attached to that of the machine.
    Opencode,
}

/// The workload that a command line asks for.
///
/// # Errors
/// Contradictory flags; a shell that would have neither a terminal nor input.
pub fn workload(context: &Context, args: &Args) -> Result<Workload, Failure> {
    let shell = args.command.is_empty();
    if args.opencode && !shell {
        let text = "`--opencode` attaches opencode instead of running a command";
        return Err(usage(text).with_hint(Hint::text("leave out one of both")).into());
    }
    if args.opencode && !args.detach {
        return match opencode::installed() {
            None if args.rm => Err(opencode::missing().into()),
            _ => Ok(Workload::Opencode),
        };
    }
    if args.detach && shell {
        return Ok(Workload::None);
    }
    if args.detach {
        return Ok(Workload::Detached(args.options.request(args.command.clone())?));
    }
    let mut request = args.options.request(args.command.clone())?;
    request.stdin = args.interactive;
    if let Some(error) = no_shell(context, args).filter(|_| shell) {
        let may_have_program = args.machine.image.is_some() || args.entrypoint.is_some();
        return if may_have_program && !args.tty {
            Ok(Workload::Program(request, error))
        } else {
            Err(error.into())
        };
    }
    // As on this host, an agent has this terminal or this input.
    let is_agent = args.agent.is_some();
    request.stdin |= is_agent;
    let agent_on_terminal = is_agent
        && !args.interactive
        && context.format == Format::Text
        && terminal::is_interactive();
    // `run` without command is a shell on this terminal.
    let wanted = match (args.tty || agent_on_terminal, shell && !args.interactive) {
        (true, _) => Wanted::Flag,
        (false, true) => Wanted::Shell,
        (false, false) => return Ok(Workload::Attached(request)),
    };
    command_options::with_terminal(context, request, wanted).map(Workload::Attached)
}

/// Why a shell cannot be run.
fn no_shell(context: &Context, args: &Args) -> Option<ApiError> {
    if context.format == Format::Json {
        return Some(usage("a shell cannot be shown as JSON: add `-d`, or a command"));
    }
    let has_input = args.interactive || args.tty || terminal::is_interactive();
    (!has_input).then(|| {
        usage("a shell needs a terminal or input, and this is neither").with_hint(Hint::text(
            "`-d` leaves the machine running, `-i` passes input on, `-- CMD` runs CMD",
        ))
    })
}

/// Starts a command that runs without a client, and prints the path of its output.
pub async fn start_in_background(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    request: &ExecRequest,
) -> Result<(), Failure> {
    let name = &vm.name;
    let start = client.detach(vm.id.as_str(), request);
    let message = match context.interrupts.run_interruptible(start).await? {
        Ok(Detached::Running { pid, log: Some(log) }) => {
            format!("the command runs as process {pid}, its output is in `{log}` of `{name}`")
        }
        Ok(Detached::Running { pid, log: None }) => {
            format!("the command runs as process {pid}, its output is discarded")
        }
        Ok(Detached::NotStarted { message, .. }) => {
            let error = ApiError::new(ErrorCode::NotFound, message);
            return Err(error.with_hint(Hint::text(still_running(name))).into());
        }
        Err(error) if error.hints.is_empty() => {
            return Err(error.with_hint(Hint::text(still_running(name))).into());
        }
        Err(error) => return Err(error.into()),
    };
    context.info(&message);
    Ok(())
}

fn still_running(vm: &VmName) -> String {
    format!("`{vm}` runs without the command; `banger vm delete -f {vm}` removes it")
}
