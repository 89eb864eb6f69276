//! `banger vm workspace …`: what changed in a machine's repository, and its way back.

mod diff;
mod pull;
mod push;
mod status;

use std::time::Instant;

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode};
use banger_client::batch::resolve;
use banger_client::{Client, Counter};
use banger_workspace::Workspace;
use clap::Subcommand;

use crate::context::Context;
use crate::errors::Failure;
use crate::render::progress::{Lines, Progress};
use crate::repository::{Machine, store_folder};

/// Commands over workspaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(alias = "st")]
    Status(status::Args),
    Diff(diff::Args),
    Pull(pull::Args),
    Push(push::Args),
}

/// Runs a command.
pub async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Status(args) => status::run(context, args).await,
        Command::Diff(args) => diff::run(context, args).await,
        Command::Pull(args) => pull::run(context, args).await,
        Command::Push(args) => push::run(context, args).await,
    }
}

/// The machine that a reference names.
async fn machine(client: &Client, reference: &str) -> Result<VmTag, ApiError> {
    let targets = resolve(&client.vms().await?, &[reference.to_owned()]);
    targets.into_iter().next().map_or_else(
        || Err(ApiError::new(ErrorCode::NotFound, format!("there is no VM `{reference}`"))),
        |target| target.found,
    )
}

/// Opens the workspace of a machine.
async fn open(context: &Context, vm: &VmTag) -> Result<Workspace, Failure> {
    let (folder, name) = (store_folder(context, &vm.id)?, vm.name.clone());
    let opening = tokio::task::spawn_blocking(move || Workspace::open(&folder, name.as_str()));
    let opened = context.interrupts.run_interruptible(opening).await?;
    Ok(opened.map_err(|error| thread_failed(&error))??)
}

/// Runs blocking work on an open workspace, and gives it back. `stage` names the work while its
/// bytes are shown.
async fn on_workspace<T: Send + 'static>(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    (mut workspace, stage): (Workspace, &str),
    work: impl FnOnce(&mut Workspace, Machine) -> Result<T, ApiError> + Send + 'static,
) -> Result<(Workspace, T), Failure> {
    let (begun, counter) = (Instant::now(), Counter::default());
    let machine = Machine::new(client, vm, &counter);
    let working = tokio::task::spawn_blocking(move || {
        let done = work(&mut workspace, machine)?;
        Ok::<_, ApiError>((workspace, done))
    });
    let mut track = Progress::new(context, Lines::Total).track(vm.name.as_str());
    let mut report = |bytes| {
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        track.transfer(elapsed_ms, stage, bytes, None);
    };
    let working = context.interrupts.run_interruptible(working);
    let done = counter.reported(&mut report, working).await?;
    Ok(done.map_err(|error| thread_failed(&error))??)
}

/// Runs blocking work on the workspace of a machine.
async fn with_workspace<T: Send + 'static>(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    stage: &str,
    work: impl FnOnce(&mut Workspace, Machine) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, Failure> {
    let workspace = open(context, vm).await?;
    let (_, done) = on_workspace(context, client, vm, (workspace, stage), work).await?;
    Ok(done)
}

fn thread_failed(error: &tokio::task::JoinError) -> ApiError {
    ApiError::new(ErrorCode::Internal, "a thread of this program has failed").caused_by(error)
}
