//! `banger agent`: what makes a coding agent's commands run in a machine.

mod hook;
mod install;
mod status;

use std::path::{Path, PathBuf};

use banger_agents::Agent;
use banger_api::{ApiError, ErrorCode};

use crate::context::Context;
use crate::errors::Failure;

/// The commands of `banger agent`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Install(install::Args),
    Status(status::Args),
    #[command(hide = true)]
    Hook(hook::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Install(args) => install::run(context, args).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Hook(args) => hook::run(context, args).await,
    }
}

/// Parses the name of an agent.
pub fn parse(name: &str) -> Result<Agent, String> {
    name.parse().map_err(|error: ApiError| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

/// The folder that an agent works in, without symlinks: agents report that one.
fn folder(path: &Path) -> Result<PathBuf, ApiError> {
    let failed = |error| {
        let text = format!("there is no folder `{}`", path.display());
        ApiError::new(ErrorCode::NotFound, text).caused_by(&error)
    };
    let folder = path.canonicalize().map_err(failed)?;
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(failed(std::io::ErrorKind::NotADirectory.into())),
    }
}
