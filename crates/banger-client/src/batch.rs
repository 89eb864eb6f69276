//! Runs one action on many VMs: resolves all references from one listing, acts in parallel, reports
//! in the order of the references.

use banger_api::operation::VmTag;
use banger_api::vm::{VmAction, VmSummary};
use banger_api::{ApiError, ErrorCode, reference};
use futures_util::{Stream, StreamExt};

use crate::client::Client;
use crate::follow::{self, FollowError, Interrupts, Notice, Observer, OnInterrupt, WaitEnd};

/// Maximum number of VMs acted on in parallel; each needs two connections to the daemon.
pub const MAX_PARALLEL: usize = 64;

/// A reference to a VM and the VM it resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name, id or prefix in the request.
    pub reference: String,
    /// The VM, or the reason why the reference does not resolve.
    pub found: Result<VmTag, ApiError>,
}

/// Resolves references from one listing. A VM that is referenced twice keeps its first position.
pub fn resolve(listing: &[VmSummary], references: &[String]) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for reference in references {
        let listed = listing.iter().map(|vm| (&vm.id, &vm.name));
        let found = reference::resolve(listed, reference).and_then(|id| {
            let vm = listing.iter().find(|vm| vm.id == id);
            vm.map(|vm| VmTag { id: vm.id.clone(), name: vm.name.clone() })
                .ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no VM `{id}`")))
        });
        let known = targets.iter().any(|target| match (&target.found, &found) {
            (Ok(a), Ok(b)) => a.id == b.id,
            (Err(_), Err(_)) => target.reference == *reference,
            _ => false,
        });
        if !known {
            targets.push(Target { reference: reference.clone(), found });
        }
    }
    targets
}

/// Effect of an action that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionEffect {
    /// The action changed the VM; its duration in milliseconds, if known.
    Done(Option<u64>),
    /// The VM was in the requested state already.
    Unchanged,
}

/// The result for one target.
#[derive(Debug)]
pub struct Outcome {
    /// The name, id or prefix in the request.
    pub reference: String,
    /// The VM, if the reference resolves.
    pub vm: Option<VmTag>,
    /// Effect of the action, or the reason why there is none.
    pub result: Result<ActionEffect, FollowError>,
}

/// Runs the action on all targets in parallel; the outcomes keep the order of the targets.
pub fn act<O: Observer>(
    client: &Client,
    targets: Vec<Target>,
    action: VmAction,
    interrupts: &Interrupts,
    observe: impl Fn(&VmTag) -> O,
) -> impl Stream<Item = Outcome> {
    futures_util::stream::iter(targets)
        .map(move |Target { reference, found }| {
            let found = found.map(|vm| (observe(&vm), vm));
            let (interrupts, action) = (interrupts.clone(), action.clone());
            async move {
                let (vm, result) = match found {
                    Ok((observer, vm)) => {
                        let result = act_on_one(client, &vm, action, interrupts, observer).await;
                        (Some(vm), result)
                    }
                    Err(error) => (None, Err(error.into())),
                };
                Outcome { reference, vm, result }
            }
        })
        .buffered(MAX_PARALLEL)
}

async fn act_on_one(
    client: &Client,
    vm: &VmTag,
    action: VmAction,
    interrupts: Interrupts,
    mut observer: impl Observer,
) -> Result<ActionEffect, FollowError> {
    if interrupts.interrupted() {
        observer.notice(Notice::WaitEnded(WaitEnd::NotStarted));
        return Err(FollowError::WaitEnded(WaitEnd::NotStarted));
    }
    let on_interrupt = OnInterrupt::of(&action);
    let request = client.act(vm.id.as_str(), action);
    let awaiting = || observer.notice(Notice::AwaitingAnswer);
    let accepted = match follow::accepted(request, &interrupts, awaiting).await {
        Err(FollowError::WaitEnded(end)) => {
            observer.notice(Notice::WaitEnded(end));
            return Err(FollowError::WaitEnded(end));
        }
        answer => answer?,
    };
    let done = client.follow_to_end(&accepted, interrupts, on_interrupt, &mut observer).await?;
    Ok(if accepted.operation.is_some() {
        ActionEffect::Done(done.ms)
    } else {
        ActionEffect::Unchanged
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::vm::VmState;

    fn summary(id: &str, name: &str) -> VmSummary {
        VmSummary {
            id: id.parse().unwrap(),
            name: name.parse().unwrap(),
            state: VmState::Stopped,
            image: "debian".into(),
            vcpus: Some(1),
            memory_mib: Some(512),
            ip: None,
            created_at: "2026-11-24T00:00:00Z".into(),
            disk: None,
            operation: None,
            publish: Vec::new(),
            labels: Default::default(),
            opencode: false,
            problem: None,
        }
    }

    #[test]
    fn references_resolve_from_one_listing_without_duplicates_and_in_order() {
        let listing = [summary("aaaa00000001", "web"), summary("aaab00000002", "db")];
        let named = ["db", "nope", "aaaa", "web", "aaa", "nope", "aaab00000002"].map(String::from);
        let targets = resolve(&listing, &named);
        let shown: Vec<(&str, Result<&str, ErrorCode>)> = targets
            .iter()
            .map(|target| {
                let found = target.found.as_ref().map(|vm| vm.name.as_str()).map_err(|e| e.code);
                (target.reference.as_str(), found)
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("db", Ok("db")),
                ("nope", Err(ErrorCode::NotFound)),
                ("aaaa", Ok("web")),
                ("aaa", Err(ErrorCode::Ambiguous)),
            ]
        );
    }
}
