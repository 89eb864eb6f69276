//! `banger acp`: an agent in a machine for an editor of this host (Agent Client Protocol).

mod carry;
mod checkout;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use banger_agents::Agent;
use banger_agents::acp::Relay;
use banger_api::vm::VmDetails;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{Exec, ExitStatus};
use banger_workspace::origin::Origin;
use banger_workspace::store::Store;

use crate::command_options::CommandOptions;
use crate::commands::agent;
use crate::context::Context;
use crate::errors::{Failure, usage};
use crate::repository;
use crate::ssh_agent::SshAgent;
use crate::waiting::{self, CommandWait};

use carry::Ended;
use checkout::Checkout;

/// Run an agent in a machine for an editor (Agent Client Protocol).
///
///   banger acp app                         the opencode of the machine `app`
///   banger acp app --agent claude          Claude Code, through its adapter
///   banger acp app -- my-agent --acp       any program that speaks the protocol
///
/// An editor starts it, and talks to it on standard input and output. The agent
/// works in the folder of the repository that `banger run PATH` put in the machine,
/// and paths are mapped: the editor's are those of this host. Files that the agent
/// has the editor read and write are those of this host, within the repository; its
/// commands run in the machine only. If the machine is gone, so is the agent.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// The agent: claude, opencode or codex [default: opencode]
    #[arg(long, value_name = "AGENT", value_parser = agent::parse, conflicts_with = "command")]
    pub agent: Option<Agent>,
    /// Folder of this host that the editor works in [default: the repository that was sent]
    #[arg(long, value_name = "DIR", requires = "guest")]
    pub host: Option<PathBuf>,
    /// The same folder in the machine
    #[arg(long, value_name = "DIR", requires = "host")]
    pub guest: Option<String>,
    /// Options of the agent.
    #[command(flatten)]
    pub options: CommandOptions,
    /// Stage to wait for.
    #[command(flatten)]
    pub wait: CommandWait,
    /// Another program that speaks the protocol, with its arguments
    #[arg(value_name = "CMD", last = true)]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if io::stdin().is_terminal() {
        let hint = "an editor starts it: `banger acp VM` is the command of its agent";
        return Err(usage("standard input is a terminal").with_hint(Hint::text(hint)).into());
    }
    let ssh_agent = SshAgent::of_environment(args.options.ssh_agent)?;
    let client = context.client().await?;
    let details = client.vm(&args.vm).await?;
    let relay = relay(context, &args, &details)?;
    let mut request = args.options.request(command(&args))?;
    request.stdin = true;
    request.cwd.get_or_insert_with(|| OsString::from(&relay.guest).into());
    let vm = details.summary.name.as_str();
    let session = waiting::connection(context, &client, vm, args.wait).await?;
    let _forwarding = ssh_agent.forward(&client, vm, &mut request).await?;
    let exec = Exec::start(session, &request).await?;
    match carry::carry(exec, relay).await? {
        Ended::Agent(ExitStatus::NotStarted { message, .. }) => {
            Err(not_started(&args, &details, &message).into())
        }
        Ended::Agent(status) => Ok(status.shell_code()),
        Ended::Editor => Err(Failure::BrokenPipe),
    }
}

/// The program that speaks the protocol.
fn command(args: &Args) -> Vec<OsString> {
    if !args.command.is_empty() {
        return args.command.clone();
    }
    let words = banger_agents::acp_program(args.agent.unwrap_or(Agent::Opencode)).command;
    words.iter().map(OsString::from).collect()
}

/// The folder on both sides.
fn relay(context: &Context, args: &Args, details: &VmDetails) -> Result<Relay<Checkout>, ApiError> {
    let (host, guest) = match (&args.host, &args.guest) {
        (Some(host), Some(guest)) => (host.clone(), guest.clone().into_bytes()),
        _ => on_record(context, details)?,
    };
    let shown = host.display().to_string();
    let failed = |error: io::Error| {
        let text = format!("the folder `{shown}` cannot be opened");
        ApiError::new(ErrorCode::of_io(&error), text).caused_by(&error)
    };
    let top = host.canonicalize().map_err(failed)?;
    if !top.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let host = top.to_str().map(str::to_owned);
    let guest = String::from_utf8(guest).ok().filter(|path| path.starts_with('/'));
    match (host, guest) {
        (Some(host), Some(guest)) => Ok(Relay { host, guest, files: Checkout { top } }),
        (None, _) => Err(usage(format!("`{shown}` is not Unicode, as the protocol needs it"))),
        (_, None) => Err(usage("the folder in the machine is not an absolute path in Unicode")),
    }
}

/// The repository that was sent, or the only live folder.
fn on_record(context: &Context, details: &VmDetails) -> Result<(PathBuf, Vec<u8>), ApiError> {
    let summary = &details.summary;
    let folder = repository::store_folder(context, &summary.id)?;
    if Store::is_at(&folder)
        && let Some(Origin { path, folder }) = Origin::of(&folder)?
    {
        return Ok((path, folder));
    }
    if let [live] = &details.sync[..] {
        let host = PathBuf::from(OsString::from_vec(live.folder.host.as_bytes().to_vec()));
        return Ok((host, live.folder.guest.as_bytes().to_vec()));
    }
    let text = format!("no repository of this host is on record for `{}`", summary.name);
    let hint = "`banger run PATH` puts one in a new machine; `--host DIR --guest DIR` name a \
                folder on both sides";
    Err(ApiError::new(ErrorCode::NotFound, text).with_hint(Hint::text(hint)))
}

fn not_started(args: &Args, details: &VmDetails, message: &str) -> ApiError {
    let error = ApiError::new(ErrorCode::NotFound, message);
    if !args.command.is_empty() {
        return error;
    }
    let name = &details.summary.name;
    let package = banger_agents::acp_program(args.agent.unwrap_or(Agent::Opencode)).package;
    error.with_hint(Hint::text(format!(
        "`banger exec {name} -- npm install -g {package}` installs it in a machine with npm"
    )))
}
