//! `banger vm create`.

use std::time::Duration;

use banger_api::exit;
use banger_api::operation::VmTag;
use banger_api::vm::VmAction;
use banger_client::Client;
use banger_client::follow::OnInterrupt;

use crate::commands::run;
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::follow;
use crate::render::progress::{Lines, Progress};
use crate::values::Machine;
use crate::waiting::{self, StartWait};

/// Longest wait for the daemon's word on the way out.
const LEAVING: Duration = Duration::from_millis(500);

/// Make a VM and start it.
///
///   banger vm create
///   banger vm create --name web --vcpus 2 --memory 4G
///   banger vm create --name later --no-start
///
/// Prints its name. `banger vm shell NAME` opens a shell in it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Leave it stopped
    #[arg(long, conflicts_with = "wait")]
    pub no_start: bool,
    /// What to wait for.
    #[command(flatten)]
    pub wait: StartWait,
    /// What it is to be.
    #[command(flatten)]
    pub machine: Machine,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut request = args.machine.request();
    request.no_start = args.no_start;
    request.check()?;
    let client = context.client().await?;
    let accepted = client.create(&request).await?;
    let vm = accepted.vm.clone().ok_or_else(run::no_vm)?;
    let track = Progress::new(context, Lines::Ready).track(vm.name.as_str());
    let followed = follow::accepted(context, &client, &accepted, track, OnInterrupt::Cancel);
    match waiting::started(&client, vm.id.as_str(), args.wait.wait, followed).await {
        Ok(()) => {
            waiting::after_start(context, &client, vm.name.as_str(), args.wait.wait).await?;
            show_made(context, &client, &vm).await
        }
        Err(failure) => {
            match &failure {
                Failure::Cancelled(_) => remove_cancelled(context, &client, &vm).await?,
                Failure::Api(_) => say_kept(context, &client, &vm).await,
                Failure::Left => abandon(&client, &vm).await,
                Failure::Pipe => {}
            }
            Err(failure)
        }
    }
}

/// Prints what was made.
pub async fn show_made(context: &Context, client: &Client, vm: &VmTag) -> Result<u8, Failure> {
    match context.format {
        Format::Json => context.json(&client.vm(vm.id.as_str()).await?)?,
        Format::Text => context.print(&format!("{}\n", vm.name))?,
    }
    Ok(exit::OK)
}

/// Removes what a cancelled create left: who cancels wants nothing of it.
pub async fn remove_cancelled(
    context: &Context,
    client: &Client,
    vm: &VmTag,
) -> Result<(), Failure> {
    run::delete(context, client, vm).await
}

/// Leaves the removal of what a cancelled create made to the daemon.
pub async fn abandon(client: &Client, vm: &VmTag) {
    let asked = client.act(vm.id.as_str(), VmAction::Delete { force: true });
    // Who leaves does not want to hear how it went, nor to wait for a daemon that is stuck.
    let _ = tokio::time::timeout(LEAVING, asked).await;
}

/// Says that a VM whose start failed is there to be looked at, if it is.
pub async fn say_kept(context: &Context, client: &Client, vm: &VmTag) {
    if client.vm(vm.id.as_str()).await.is_ok() {
        let name = &vm.name;
        context.say(&format!(
            "`{name}` was kept: `banger vm show {name}` and `banger vm logs {name}` tell more, \
             `banger vm delete {name}` removes it"
        ));
    }
}
