//! One action on many VMs: all found in one listing, worked on in parallel, reported in order.

use banger_api::operation::VmTag;
use banger_api::vm::{VmAction, VmSummary};
use banger_api::{ApiError, ErrorCode, reference};
use futures_util::{Stream, StreamExt};

use crate::client::Client;
use crate::follow::{Interrupts, Left, NotDone, Notice, Observer, OnInterrupt};

/// Most VMs worked on at once: each takes two connections to the daemon.
pub const AT_ONCE: usize = 64;

/// One of the VMs that were named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it was named.
    pub reference: String,
    /// The VM of that name, id or prefix.
    pub found: Result<VmTag, ApiError>,
}

/// Finds all named VMs in one listing; those named twice are kept once, where they came first.
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

/// An action that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// It was done, in this many milliseconds where that is known.
    Done(Option<u64>),
    /// It was so already.
    Already,
}

/// The result for one target.
#[derive(Debug)]
pub struct Outcome {
    /// As it was named.
    pub reference: String,
    /// The VM, where one was found.
    pub vm: Option<VmTag>,
    /// How it went.
    pub result: Result<Acted, NotDone>,
}

/// Works on all targets at once; the outcomes come in the order of the targets.
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
            let interrupts = interrupts.clone();
            async move {
                let (vm, result) = match found {
                    Ok((observer, vm)) => {
                        let result = one(client, &vm, action, interrupts, observer).await;
                        (Some(vm), result)
                    }
                    Err(error) => (None, Err(error.into())),
                };
                Outcome { reference, vm, result }
            }
        })
        .buffered(AT_ONCE)
}

async fn one(
    client: &Client,
    vm: &VmTag,
    action: VmAction,
    interrupts: Interrupts,
    mut observer: impl Observer,
) -> Result<Acted, NotDone> {
    if interrupts.interrupted() {
        observer.notice(Notice::Left(Left::NotBegun));
        return Err(NotDone::Left(Left::NotBegun));
    }
    let accepted = client.act(vm.id.as_str(), action).await?;
    let on_interrupt = OnInterrupt::of(action);
    let done = client.follow_to_end(&accepted, interrupts, on_interrupt, &mut observer).await?;
    Ok(if accepted.operation.is_some() { Acted::Done(done.ms) } else { Acted::Already })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::vm::{DiskView, VmState};

    fn summary(id: &str, name: &str) -> VmSummary {
        VmSummary {
            id: id.parse().unwrap(),
            name: name.parse().unwrap(),
            state: VmState::Stopped,
            image: "debian".into(),
            vcpus: 1,
            memory_mib: 512,
            ip: None,
            created_at: "2026-11-24T00:00:00Z".into(),
            disk: DiskView::default(),
            operation: None,
            publish: Vec::new(),
            problem: None,
        }
    }

    #[test]
    fn all_are_found_in_one_listing_once_and_in_order() {
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
