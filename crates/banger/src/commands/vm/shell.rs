//! `banger vm shell`.

use banger_api::operation::VmTag;
use banger_api::vm::{AgentHealth, VmState};
use banger_client::Client;

use crate::attach::Guest;
use crate::commands::exec;
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::inside::{self, Inside};
use crate::terminal::Wanted;
use crate::waiting::{self, CommandWait};

/// Open a shell in a running VM; its exit code is ours.
///
///   banger vm shell web
///   banger vm shell web -u www-data -w /srv
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Flags about the shell.
    #[command(flatten)]
    pub inside: Inside,
    /// What to wait for.
    #[command(flatten)]
    pub wait: CommandWait,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if context.format == Format::Json {
        return Err(usage("a shell cannot be shown as JSON").into());
    }
    let request = args.inside.request(Vec::new());
    let request = inside::with_terminal(context, request, Wanted::Shell)?;
    let client = context.client().await?;
    let details = client.vm(&args.vm).await?;
    let vm = VmTag { id: details.summary.id, name: details.summary.name };
    let stream = waiting::connection(context, &client, vm.name.as_str(), args.wait).await?;
    let guest = Guest { client: &client, vm: vm.name.as_str() };
    let ended = exec::attached(context, stream, &request, &guest).await;
    say_still_running(context, &client, &vm).await;
    ended
}

/// After a session: says so if the VM still runs, and how to stop it.
pub async fn say_still_running(context: &Context, client: &Client, vm: &VmTag) {
    let Ok(health) = client.health(vm.id.as_str()).await else { return };
    // An agent that does not answer right after a session is one whose guest goes down.
    if health.state == VmState::Running && health.agent == AgentHealth::Ok {
        let name = &vm.name;
        context.say(&format!("`{name}` is still running; `banger vm stop {name}` stops it"));
    }
}
