//! Requests to the daemon: each is a task that sends what it did as messages.

use banger_api::images::{ImagePullRequest, PullRequest};
use banger_api::operation::{Accepted, VmTag};
use banger_api::vm::{CreateVm, VmAction};
use banger_api::{ApiError, ErrorCode, OpId};
use banger_client::Client;
use banger_client::batch::{self, Target};
use banger_client::follow::{FollowError, Interrupts, OnInterrupt};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::feed::Feed;
use crate::model::PullKind;
use crate::update::{CreateEnd, Data};

/// Operations are cancelled by a request, not by an interrupt.
fn no_interrupts() -> Interrupts {
    Interrupts::new(watch::Sender::new(0).subscribe())
}

fn reason(error: FollowError) -> ApiError {
    match error {
        FollowError::Failed(error) | FollowError::Cancelled(error) => *error,
        // Without interrupts no wait ends early.
        FollowError::WaitEnded(_) => {
            ApiError::new(ErrorCode::Interrupted, "the operation continues in the daemon")
        }
    }
}

/// Requests an action on VMs.
pub async fn act(feed: Feed, vms: Vec<VmTag>, action: VmAction) {
    let name = action.as_str();
    let target = |vm: VmTag| Target { reference: vm.id.to_string(), found: Ok(vm) };
    let targets = vms.into_iter().map(target).collect();
    // The stages come with the events of all operations.
    let outcomes = batch::act(&feed.client, targets, action, &no_interrupts(), |_| ())
        .filter_map(|outcome| async move { Some((outcome.vm?, outcome.result.map_err(reason))) })
        .collect::<Vec<_>>()
        .await;
    feed.send(Data::Acted(name, outcomes)).await;
    feed.reread();
    feed.refresh();
}

/// Creates a VM.
pub async fn create(feed: Feed, request: CreateVm) {
    let answer = feed.client.create(&request).await;
    feed.send(Data::Created(answer.clone())).await;
    let Ok(accepted) = answer else { return };
    let Some(vm) = accepted.vm.clone() else { return };
    feed.reread();
    let end = match follow(&feed, &accepted).await {
        Ok(()) => CreateEnd::Ready,
        Err(error) => match feed.client.vm(vm.id.as_str()).await {
            Ok(_) => CreateEnd::Kept(error),
            Err(_) => CreateEnd::Undone(error),
        },
    };
    feed.send(Data::CreateEnded(vm, end)).await;
    feed.refresh();
}

/// Waits for the end of an operation; its stages come with the events of all operations.
async fn follow(feed: &Feed, accepted: &Accepted) -> Result<(), ApiError> {
    let on_interrupt = OnInterrupt::Ignore;
    let mut observer = ();
    let client = &feed.client;
    let done = client.follow_to_end(accepted, no_interrupts(), on_interrupt, &mut observer);
    done.await.map(|_| ()).map_err(reason)
}

/// Pulls an image or a kernel.
pub async fn pull(feed: Feed, kind: PullKind, name: String) {
    let (what, answer) = match kind {
        PullKind::Image => {
            let request = ImagePullRequest { name: name.clone(), refresh: false };
            ("image", feed.client.pull_image(&request).await)
        }
        PullKind::Kernel => {
            let request = PullRequest { name: name.clone() };
            ("kernel", feed.client.pull_kernel(&request).await)
        }
    };
    let accepted = match answer {
        Ok(accepted) => accepted,
        Err(error) => return feed.send(Data::Pulled(kind, Err(error))).await,
    };
    feed.send(Data::Pulled(kind, Ok(()))).await;
    feed.refresh();
    let done = follow(&feed, &accepted).await;
    feed.send(Data::Did(done.map(|()| format!("{what} `{name}` is here")))).await;
    feed.refresh();
}

/// Deletes an image or a kernel.
pub async fn delete(feed: Feed, kind: PullKind, name: String) {
    let (what, deleted) = match kind {
        PullKind::Image => ("image", feed.client.delete_image(&name).await),
        PullKind::Kernel => ("kernel", feed.client.delete_kernel(&name).await),
    };
    let text = |freed| format!("the {what} was deleted: {} freed", crate::text::size(freed));
    feed.send(Data::Did(deleted.map(|deleted| text(deleted.freed_bytes)))).await;
    feed.refresh();
}

/// Cancels an operation.
pub async fn cancel(feed: Feed, operation: OpId) {
    let answer = feed.client.cancel(&operation).await;
    feed.send(Data::Did(answer.map(|_| format!("{operation} is being cancelled")))).await;
    feed.refresh();
}

/// Starts the daemon, which replaces one of another build.
pub async fn start_daemon(feed: Feed, starter: Client) {
    match starter.ensure_daemon().await {
        Ok(status) => feed.send(Data::Up(Some(Box::new(status)))).await,
        Err(error) => feed.send(Data::Did(Err(error))).await,
    }
    feed.reread();
}
