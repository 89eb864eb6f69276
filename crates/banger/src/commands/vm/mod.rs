//! `banger vm …`.

pub mod action;
pub mod create;
pub mod events;
pub mod health;
pub mod list;
pub mod logs;
pub mod ports;
pub mod prune;
pub mod rename;
pub mod set;
pub mod shell;
pub mod show;
pub mod stats;
pub mod sync;
pub mod workspace;

use clap::Subcommand;

use crate::commands::{cp, exec, run, ssh};
use crate::context::Context;
use crate::errors::Failure;

/// Commands over VMs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    #[command(alias = "launch")]
    Create(create::Args),
    Start(action::StartArgs),
    Stop(action::StopArgs),
    #[command(alias = "reboot")]
    Restart(action::RestartArgs),
    Kill(action::KillArgs),
    Pause(action::PauseArgs),
    #[command(alias = "unpause")]
    Resume(action::ResumeArgs),
    #[command(visible_alias = "rm", aliases = ["remove", "destroy"])]
    Delete(action::DeleteArgs),
    Repair(action::RepairArgs),
    Set(set::Args),
    Rename(rename::Args),
    Reset(action::ResetArgs),
    #[command(visible_alias = "ls", alias = "ps")]
    List(list::Args),
    #[command(visible_alias = "inspect", alias = "info")]
    Show(show::Args),
    Exec(exec::Args),
    #[command(alias = "copy")]
    Cp(cp::Args),
    Shell(shell::Args),
    Ssh(ssh::Args),
    Logs(logs::Args),
    #[command(alias = "port")]
    Ports(ports::Args),
    #[command(alias = "top")]
    Stats(stats::Args),
    Health(health::Args),
    Sync(sync::Args),
    Events(events::Args),
    Prune(prune::Args),
    /// See what changed in a machine's repository, bring it here, and send changes.
    ///
    ///   banger vm workspace status web    what changed on either side
    ///   banger vm workspace diff web      the machine's changes as a patch
    ///   banger vm workspace pull web      bring them here
    ///   banger vm workspace push web      send changes of this host
    ///
    /// `banger run PATH` puts a repository in a machine.
    #[command(subcommand, verbatim_doc_comment, visible_alias = "ws")]
    Workspace(workspace::Command),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(context, args).await,
        Command::Create(args) => create::run(context, args).await,
        Command::Start(args) => action::start(context, args).await,
        Command::Stop(args) => action::stop(context, args).await,
        Command::Restart(args) => action::restart(context, args).await,
        Command::Kill(args) => action::kill(context, args).await,
        Command::Pause(args) => action::pause(context, args).await,
        Command::Resume(args) => action::resume(context, args).await,
        Command::Delete(args) => action::delete(context, args).await,
        Command::Repair(args) => action::repair(context, args).await,
        Command::Set(args) => set::run(context, args).await,
        Command::Rename(args) => rename::run(context, args).await,
        Command::Reset(args) => action::reset(context, args).await,
        Command::List(args) => list::run(context, args).await,
        Command::Show(args) => show::run(context, args).await,
        Command::Cp(args) => cp::run(context, args).await,
        Command::Exec(args) => exec::run(context, args).await,
        Command::Shell(args) => shell::run(context, args).await,
        Command::Ssh(args) => ssh::run(context, args).await,
        Command::Logs(args) => logs::run(context, args).await,
        Command::Stats(args) => stats::run(context, args).await,
        Command::Health(args) => health::run(context, args).await,
        Command::Sync(args) => sync::run(context, args).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Ports(args) => ports::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
        Command::Workspace(command) => workspace::dispatch(context, command).await,
    }
}
