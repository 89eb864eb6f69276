//! `banger exec`, `banger vm exec`.

use std::ffi::OsString;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{AgentSession, ExecRequest};

use crate::attach::{self, Captured, Guest, SessionEnd, Sink};
use crate::command_options::{self, CommandOptions};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::repository::InWorkspace;
use crate::ssh_agent::SshAgent;
use crate::terminal::Wanted;
use crate::waiting::{self, CommandWait};

/// Run a command in a running VM and return its exit code.
///
///   banger exec web uname -a
///   banger exec -it web bash
///   tar c . | banger exec -i -w /srv web tar x
///
/// Without `-i` the command has no input. With `-t` it uses your terminal: keys go
/// to the command, Ctrl-C too. Flags of banger must precede the command.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Forward standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Use a terminal, which includes input
    #[arg(short, long)]
    pub tty: bool,
    /// Options of the command.
    #[command(flatten)]
    pub options: CommandOptions,
    /// Working folder.
    #[command(flatten)]
    pub place: InWorkspace,
    /// Stage to wait for.
    #[command(flatten)]
    pub wait: CommandWait,
    /// The command with its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let agent = SshAgent::of_environment(args.options.ssh_agent)?;
    let mut request = args.options.request(args.command)?;
    request.stdin = args.interactive;
    if args.tty {
        request = command_options::with_terminal(context, request, Wanted::Flag)?;
    }
    let client = context.client().await?;
    args.place.apply(context, &client, &args.vm, &mut request).await?;
    let session = waiting::connection(context, &client, &args.vm, args.wait).await?;
    let _forwarding = agent.forward(&client, &args.vm, &mut request).await?;
    attached(context, session, &request, &Guest { client: &client, vm: &args.vm }).await
}

/// Runs the command on the streams of this process or into a JSON document; returns its exit code.
pub async fn attached(
    context: &Context,
    session: AgentSession,
    request: &ExecRequest,
    guest: &Guest<'_>,
) -> Result<u8, Failure> {
    to_end(context, session, request, guest).await.map(|ended| ended.code())
}

/// The same; returns how the session ended.
pub async fn to_end(
    context: &Context,
    session: AgentSession,
    request: &ExecRequest,
    guest: &Guest<'_>,
) -> Result<SessionEnd, Failure> {
    let mut sink = match context.format {
        Format::Text => Sink::Streams,
        Format::Json => Sink::Memory(Captured::default()),
    };
    let ended = attach::run(session, request, &mut sink, guest).await?;
    match &ended {
        SessionEnd::Exited(banger_client::ExitStatus::NotStarted { message, .. }) => {
            crate::errors::show(context, &ApiError::new(ErrorCode::NotFound, message));
        }
        SessionEnd::Unresponsive(_, reason) => {
            let error =
                ApiError::new(ErrorCode::GuestFailed, format!("{reason}; the client gave up"))
                    .with_hint(Hint::check(guest.vm));
            crate::errors::show(context, &error);
        }
        SessionEnd::Exited(_) | SessionEnd::Interrupted(_) => {}
    }
    if let Sink::Memory(kept) = sink {
        context.json(&serde_json::json!({
            "exit_code": ended.code(),
            "stdout": String::from_utf8_lossy(&kept.stdout),
            "stderr": String::from_utf8_lossy(&kept.stderr),
            "truncated": kept.truncated,
        }))?;
    }
    Ok(ended)
}
