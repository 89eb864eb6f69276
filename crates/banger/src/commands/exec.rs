//! `banger exec`, `banger vm exec`.

use std::ffi::OsString;

use banger_api::{ApiError, ErrorCode};
use banger_client::ExecRequest;

use crate::attach::{self, Captured, Ended, Guest, Sink};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::terminal;
use crate::values::{self, Variable};

/// Run a command in a running VM; its exit code is ours.
///
///   banger exec web -- uname -a
///   banger exec web -it -- bash
///   tar c . | banger exec web -i -w /srv -- tar x
///
/// Without `-i` the command has no input. With `-t` it has your terminal: what you type goes to it,
/// Ctrl-C too.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal, input included
    #[arg(short, long)]
    pub tty: bool,
    /// Folder to run in [default: the user's home]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// Set an environment variable; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::variable())]
    pub env: Vec<Variable>,
    /// User to run as, each a name or a number [default: root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The command
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let request = ExecRequest {
        argv: args.command.into_iter().map(Into::into).collect(),
        env: values::environment(args.env),
        cwd: args.workdir.map(Into::into),
        user: args.user,
        stdin: args.interactive,
        ..ExecRequest::default()
    };
    let request = with_terminal(context, request, args.tty)?;
    let client = context.client().await?;
    let stream = context.interrupts.or_leave(client.agent_connection(&args.vm)).await??;
    attached(context, stream, &request, &Guest { client: &client, vm: &args.vm }).await
}

/// The same request on a terminal, where one was asked for and there is one.
pub fn with_terminal(
    context: &Context,
    mut request: ExecRequest,
    tty: bool,
) -> Result<ExecRequest, Failure> {
    if !tty {
        return Ok(request);
    }
    if context.format == Format::Json {
        return Err(usage("a terminal cannot be shown as JSON: leave `-t` or `--json` away").into());
    }
    terminal::require()?;
    // A terminal that cannot be typed at is of no use.
    request.stdin = true;
    request.tty = Some(terminal::size());
    request.term = std::env::var("TERM").ok();
    Ok(request)
}

/// Runs it with our streams, or into a document; gives its exit code.
pub async fn attached(
    context: &Context,
    stream: tokio::net::UnixStream,
    request: &ExecRequest,
    guest: &Guest<'_>,
) -> Result<u8, Failure> {
    let mut sink = match context.format {
        Format::Text => Sink::Streams,
        Format::Json => Sink::Memory(Captured::default()),
    };
    let ended = attach::run(stream, request, &mut sink, guest).await?;
    let code = match &ended {
        Ended::Exited(status) => {
            if let banger_client::ExitStatus::NotStarted { message, .. } = status {
                let error = ApiError::new(ErrorCode::NotFound, message);
                crate::errors::show(context, &error);
            }
            status.shell_code()
        }
        Ended::Left(code) => *code,
        Ended::GaveUp(code, reason) => {
            let error = ApiError::new(ErrorCode::GuestFailed, format!("{reason}; it was left"))
                .with_hint(format!("`banger vm health {}` asks the guest again", guest.vm));
            crate::errors::show(context, &error);
            *code
        }
    };
    if let Sink::Memory(kept) = sink {
        context.json(&serde_json::json!({
            "exit_code": code,
            "stdout": String::from_utf8_lossy(&kept.stdout),
            "stderr": String::from_utf8_lossy(&kept.stderr),
            "truncated": kept.truncated,
        }))?;
    }
    Ok(code)
}
