//! `banger system …`.

pub mod df;
pub mod prune;

use clap::Subcommand;

use crate::context::Context;
use crate::errors::Failure;

/// Commands over the host's disk.
#[derive(Debug, Subcommand)]
pub enum Command {
    Df(df::Args),
    Prune(prune::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Df(args) => df::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
    }
}
