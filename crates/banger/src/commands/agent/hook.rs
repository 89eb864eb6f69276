//! `banger agent hook`: answers an agent that is about to run a command.

use std::io::{self, Read as _};
use std::path::PathBuf;

use banger_agents::{Agent, Workspace, hook};
use banger_api::{ApiError, ErrorCode, Hint, exit};

use crate::context::Context;
use crate::errors::{Failure, usage};

/// Rewrite the command of an agent's question so that it runs in a machine.
///
///   banger agent hook claude --vm web --host /home/me/app --guest /root/app
///
/// What `banger agent install` writes calls it. `BANGER_VM` names another machine.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The agent: claude, opencode or codex
    #[arg(value_name = "AGENT", value_parser = super::parse)]
    pub agent: Agent,
    /// Name of the machine
    #[arg(long)]
    pub vm: String,
    /// Folder of this host that the agent works in
    #[arg(long, value_name = "DIR")]
    pub host: PathBuf,
    /// The same folder in the machine
    #[arg(long, value_name = "DIR")]
    pub guest: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let Args { agent, vm, host, guest } = args;
    let vm = std::env::var("BANGER_VM").ok().filter(|name| !name.is_empty()).unwrap_or(vm);
    let mut question = Vec::new();
    let limit = hook::MAX_INPUT as u64 + 1;
    io::stdin().lock().take(limit).read_to_end(&mut question).map_err(|error| {
        ApiError::new(ErrorCode::Internal, "standard input cannot be read").caused_by(&error)
    })?;
    if question.len() > hook::MAX_INPUT {
        return Err(usage("the question has more than 4 MiB").into());
    }
    let workspace = Workspace { host, vm, guest };
    let answer = hook::answer(&question, &workspace, &program()?).map_err(|error| {
        let hint = format!("`banger agent install {agent} --uninstall` removes this hook");
        error.with_hint(Hint::text(hint))
    })?;
    context.print(&format!("{answer}\n"))?;
    Ok(exit::OK)
}

/// Path of this program.
pub fn program() -> Result<String, ApiError> {
    let failed = "the path of this program is not known, or not text";
    let path = std::env::current_exe()
        .map_err(|error| ApiError::new(ErrorCode::HostNotReady, failed).caused_by(&error))?;
    path.into_os_string().into_string().map_err(|_| ApiError::new(ErrorCode::HostNotReady, failed))
}
