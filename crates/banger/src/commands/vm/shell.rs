//! `banger vm shell`.

use banger_api::operation::VmTag;
use banger_api::vm::{AgentHealth, VmState};
use banger_client::Client;

use crate::attach::Guest;
use crate::command_options::{self, CommandOptions};
use crate::commands::exec;
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::repository::InWorkspace;
use crate::ssh_agent::SshAgent;
use crate::terminal::Wanted;
use crate::waiting::{self, CommandWait};

/// Open a shell in a running VM and return its exit code.
///
///   banger vm shell web
///   banger vm shell web -u www-data -w /srv
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Options of the shell.
    #[command(flatten)]
    pub options: CommandOptions,
    /// Working folder.
    #[command(flatten)]
    pub place: InWorkspace,
    /// Stage to wait for.
    #[command(flatten)]
    pub wait: CommandWait,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if context.format == Format::Json {
        return Err(usage("a shell cannot be shown as JSON").into());
    }
    let agent = SshAgent::of_environment(args.options.ssh_agent)?;
    let request = args.options.request(Vec::new())?;
    let mut request = command_options::with_terminal(context, request, Wanted::Shell)?;
    let client = context.client().await?;
    let details = client.vm(&args.vm).await?;
    let vm = VmTag { id: details.summary.id, name: details.summary.name };
    args.place.apply(context, &client, vm.id.as_str(), &mut request).await?;
    let stream = waiting::connection(context, &client, vm.name.as_str(), args.wait).await?;
    let guest = Guest { client: &client, vm: vm.name.as_str() };
    let forwarding = agent.forward(&client, vm.id.as_str(), &mut request).await?;
    let ended = exec::attached(context, stream, &request, &guest).await;
    drop(forwarding);
    report_running(context, &client, &vm).await;
    ended
}

/// After a session: reports that the VM is still running and how to stop it.
pub async fn report_running(context: &Context, client: &Client, vm: &VmTag) {
    let Ok(health) = client.health(vm.id.as_str()).await else { return };
    // If the agent does not answer after a session, the guest is shutting down.
    if health.state == VmState::Running && health.agent == AgentHealth::Ok {
        // The VM may have been renamed during the session.
        let name = &health.name;
        context.info(&format!("`{name}` is still running; `banger vm stop {name}` stops it"));
    }
}
