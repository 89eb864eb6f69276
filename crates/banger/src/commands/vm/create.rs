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

/// Time limit of a delete request that is sent just before the program ends.
const DELETE_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Create a VM and start it.
///
///   banger vm create
///   banger vm create --name web --vcpus 2 --memory 4G
///   banger vm create --name later --no-start
///
/// Prints its name. `banger vm shell NAME` opens a shell in it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Do not start it
    #[arg(long, conflicts_with = "wait")]
    pub no_start: bool,
    /// Stage to wait for.
    #[command(flatten)]
    pub wait: StartWait,
    /// Specification of the VM.
    #[command(flatten)]
    pub machine: Machine,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut request = args.machine.request()?;
    request.no_start = args.no_start;
    request.check()?;
    let client = context.client().await?;
    let (accepted, interrupts) = follow::request(context, client.create(&request)).await?;
    let vm = accepted.vm.clone().ok_or_else(run::no_vm)?;
    let lines = if args.no_start { Lines::Created } else { Lines::Ready };
    let track = Progress::new(context, lines).track(vm.name.as_str());
    let followed = follow::accepted(&client, (&accepted, interrupts), track, OnInterrupt::Cancel);
    match waiting::started(&client, vm.id.as_str(), args.wait.wait, followed).await {
        Ok(()) => {
            waiting::after_start(context, &client, vm.name.as_str(), args.wait.wait).await?;
            show_made(context, &client, &vm).await
        }
        Err(failure) => {
            match &failure {
                Failure::Cancelled(_) => remove_cancelled(context, &client, &vm).await?,
                Failure::Api(_) => report_kept(context, &client, &vm).await,
                Failure::WaitEnded => abandon(&client, &vm).await,
                Failure::BrokenPipe => {}
            }
            Err(failure)
        }
    }
}

/// Prints the new VM.
pub async fn show_made(context: &Context, client: &Client, vm: &VmTag) -> Result<u8, Failure> {
    match context.format {
        Format::Json => context.json(&client.vm(vm.id.as_str()).await?)?,
        Format::Text => context.print(&format!("{}\n", vm.name))?,
    }
    Ok(exit::OK)
}

/// Deletes the VM of a cancelled create.
pub async fn remove_cancelled(
    context: &Context,
    client: &Client,
    vm: &VmTag,
) -> Result<(), Failure> {
    run::delete(context, client, vm).await
}

/// Requests the deletion of the VM of a cancelled create without waiting for its end.
pub async fn abandon(client: &Client, vm: &VmTag) {
    let request = client.act(vm.id.as_str(), VmAction::Delete { force: true });
    // The program ends whatever the daemon answers.
    let _ = tokio::time::timeout(DELETE_REQUEST_TIMEOUT, request).await;
}

/// Reports that a VM was kept after its start failed, if it exists.
pub async fn report_kept(context: &Context, client: &Client, vm: &VmTag) {
    if client.vm(vm.id.as_str()).await.is_ok() {
        let name = &vm.name;
        context.info(&format!(
            "`{name}` was kept: `banger vm show {name}` and `banger vm logs {name}` show why, \
             `banger vm delete {name}` removes it"
        ));
    }
}
