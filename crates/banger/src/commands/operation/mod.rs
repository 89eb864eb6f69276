//! `banger operation …`.

pub mod cancel;
pub mod list;
pub mod show;

use banger_api::operation::{OpState, Subject};
use banger_api::{ApiError, ErrorCode, Hint};
use clap::Subcommand;

use crate::context::Context;
use crate::errors::Failure;

/// Commands over operations.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(visible_alias = "ls")]
    List(list::Args),
    #[command(visible_alias = "inspect", alias = "info")]
    Show(show::Args),
    Cancel(cancel::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::List(args) => list::run(context, args).await,
        Command::Show(args) => show::run(context, args).await,
        Command::Cancel(args) => cancel::run(context, args).await,
    }
}

/// `VM web`, `image debian`, `host`.
fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::Vm(vm) => format!("VM {}", vm.name),
        Subject::Image { name, .. } => format!("image {name}"),
        Subject::Kernel { name, .. } => format!("kernel {name}"),
        Subject::Host => "host".to_owned(),
    }
}

fn state_text(state: OpState) -> &'static str {
    match state {
        OpState::Running => "running",
        OpState::Succeeded => "succeeded",
        OpState::Failed => "failed",
    }
}

/// Adds the hint for an unknown id.
fn with_hint(error: ApiError) -> ApiError {
    if error.code == ErrorCode::NotFound && error.hints.is_empty() {
        return error.with_hint(Hint::text("`banger operation list` lists the newest operations"));
    }
    error
}
