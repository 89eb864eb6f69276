//! `banger image …`.

pub mod build;
pub mod commit;
pub mod delete;
pub mod history;
pub mod import;
pub mod list;
pub mod promote;
pub mod prune;
pub mod pull;
pub mod register;
pub mod show;
pub mod tag;
pub mod untag;

use clap::Subcommand;

use crate::context::Context;
use crate::errors::Failure;

/// Commands over images.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(visible_alias = "ls")]
    List(list::Args),
    #[command(visible_alias = "inspect", alias = "info")]
    Show(show::Args),
    History(history::Args),
    Pull(pull::Args),
    Import(import::Args),
    Build(build::Args),
    Commit(commit::Args),
    Register(register::Args),
    Promote(promote::Args),
    Tag(tag::Args),
    Untag(untag::Args),
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(delete::Args),
    Prune(prune::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::List(args) => list::run(context, args).await,
        Command::Show(args) => show::run(context, args).await,
        Command::History(args) => history::run(context, args).await,
        Command::Pull(args) => pull::run(context, args).await,
        Command::Import(args) => import::run(context, args).await,
        Command::Build(args) => build::run(context, args).await,
        Command::Commit(args) => commit::run(context, args).await,
        Command::Register(args) => register::run(context, args).await,
        Command::Promote(args) => promote::run(context, args).await,
        Command::Tag(args) => tag::run(context, args).await,
        Command::Untag(args) => untag::run(context, args).await,
        Command::Delete(args) => delete::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
    }
}
