//! `banger kernel …`.

pub mod build;
pub mod delete;
pub mod import;
pub mod list;
pub mod prune;
pub mod pull;

use clap::Subcommand;

use crate::context::Context;
use crate::errors::Failure;

/// Commands over kernels.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(visible_alias = "ls")]
    List(list::Args),
    Pull(pull::Args),
    Import(import::Args),
    Build(build::Args),
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    Prune(prune::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::List(args) => list::run(context, args).await,
        Command::Pull(args) => pull::run(context, args).await,
        Command::Build(args) => build::run(context, args).await,
        Command::Import(args) => import::run(context, args).await,
        Command::Delete(args) => delete::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
    }
}
