//! `banger daemon …`.

pub mod logs;
pub mod start;
pub mod status;
pub mod stop;

use clap::Subcommand;

use crate::context::Context;
use crate::errors::Failure;

/// Commands over the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    Status(status::Args),
    Start(start::Args),
    Stop(stop::Args),
    Logs(logs::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Status(args) => status::run(context, args).await,
        Command::Start(args) => start::run(context, args).await,
        Command::Stop(args) => stop::run(context, args).await,
        Command::Logs(args) => logs::run(context, args).await,
    }
}
