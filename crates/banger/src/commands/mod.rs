//! One file for each command: doc comment = help, `Args` = flags, `run` = its implementation.

pub mod acp;
pub mod agent;
pub mod alias;
pub mod api;
pub mod completion;
pub mod cp;
pub mod daemon;
pub mod doctor;
mod equip;
pub mod exec;
pub mod image;
pub mod inside;
pub mod kernel;
pub mod man;
pub mod mcp;
pub mod opencode;
pub mod operation;
pub mod program;
pub mod run;
pub mod serve;
pub mod ssh;
pub mod ssh_config;
pub mod ssh_proxy;
pub mod system;
pub mod tui;
pub mod version;
pub mod vm;
pub mod web;
pub mod workload;

use crate::cli::Command;
use crate::context::Context;
use crate::errors::Failure;

/// Runs a command and gives its exit code.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(context, args).await,
        Command::Ps(args) => vm::list::ps(context, args).await,
        Command::Exec(args) => exec::run(context, args).await,
        Command::Cp(args) => cp::run(context, args).await,
        Command::Ssh(args) => ssh::run(context, args).await,
        Command::SshConfig(args) => ssh_config::run(context, args).await,
        Command::SshProxy(args) => ssh_proxy::run(context, args).await,
        Command::Vm(command) => vm::dispatch(context, command).await,
        Command::Image(command) => image::dispatch(context, command).await,
        Command::Kernel(command) => kernel::dispatch(context, command).await,
        Command::System(command) => system::dispatch(context, command).await,
        Command::Operation(command) => operation::dispatch(context, command).await,
        Command::Daemon(command) => daemon::dispatch(context, command).await,
        Command::Tui(args) => tui::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Agent(command) => agent::dispatch(context, command).await,
        Command::Acp(args) => acp::run(context, args).await,
        Command::Mcp(args) => mcp::run(context, args).await,
        Command::Serve(args) => serve::run(context, args).await,
        Command::Api(args) => api::run(context, args).await,
        Command::Completion(args) => completion::run(context, args).await,
        Command::Man(args) => man::run(context, args).await,
        Command::Complete(args) => completion::complete(context, args).await,
        Command::Web(args) => web::run(context, args).await,
        Command::Version(args) => version::run(context, args),
        Command::Alias(short) => Box::pin(dispatch(context, short.into())).await,
    }
}
