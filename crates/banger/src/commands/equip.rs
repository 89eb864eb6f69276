//! What `banger run` puts in a machine before its command: repository, live folders, agent.

use std::time::Duration;

use banger_api::operation::VmTag;
use banger_api::set::SetVm;
use banger_api::sync::SyncFolder;
use banger_api::vm::VmAction;
use banger_client::Client;
use banger_client::follow::OnInterrupt;

use super::run::Args;
use crate::commands::vm::sync;
use crate::commands::{inside, program};
use crate::context::Context;
use crate::errors::Failure;
use crate::follow;
use crate::render::progress::{Lines, Progress};
use crate::render::warning;
use crate::repository::{self, Content};

/// How long a command waits for the first copy of live folders.
const FIRST_COPY: Duration = Duration::from_secs(60);

/// Puts in a machine that has started what it works with.
///
/// # Errors
/// The guest's, git's, an interrupt; what was done before stays.
pub async fn equip(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    (args, content, live): (&Args, Option<&Content>, Vec<SyncFolder>),
) -> Result<(), Failure> {
    if let Some(content) = content {
        import(context, client, vm, content).await?;
    }
    if !live.is_empty() {
        let set = VmAction::Set(Box::new(SetVm { sync: live, ..SetVm::default() }));
        let (accepted, interrupts) =
            follow::request(context, client.act(vm.id.as_str(), set)).await?;
        // A part of the start: what it changes is no news.
        client.follow_to_end(&accepted, interrupts, OnInterrupt::Cancel, &mut ()).await?;
        // Before both sides are known to be alike, an edit would be a conflict.
        let joining = sync::alike(client, vm.id.as_str(), FIRST_COPY);
        if let Err(Failure::Api(error)) = context.interrupts.run_interruptible(joining).await? {
            warning(&error.line());
        }
    }
    if let Some(agent) = args.agent {
        let user = args.options.user.as_deref();
        // A program of the machine itself has begun already, with the login of root; whether it is
        // there at all, its exit code tells.
        if args.detach && inside::is_root(user) && program::is_run(client, vm).await? {
            return Ok(());
        }
        inside::prepare(context, client, vm, (agent, user)).await?;
    }
    Ok(())
}

/// Puts a repository or folder in a machine that has started.
async fn import(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    content: &Content,
) -> Result<(), Failure> {
    let store = repository::store_folder(context, &vm.id)?;
    content.keep_record(store.clone()).await?;
    let mut track = Progress::new(context, Lines::Total).track(vm.name.as_str());
    let sending = content.send(client, vm, &store, &mut track);
    context.interrupts.run_interruptible(sending).await??;
    Ok(())
}

/// Tells of a machine that stays with a part of its content.
pub fn report_partial(context: &Context, vm: &VmTag, has_content: bool) {
    if has_content {
        let name = &vm.name;
        context.info(&format!(
            "`{name}` does not have everything of the folder: `banger vm delete -f {name}` removes \
             it"
        ));
    }
}
