//! Commits: the daemon is killed at each event, each effect fails, each commit of the store fails,
//! the operation is cancelled, its VM is deleted meanwhile. The VM stays as it was, no unfinished
//! file is left, and the image is there with its name or not at all.

use std::time::Duration;

use banger_api::images::ImageCommitRequest;
use banger_api::operation::{CancelEffect, OpState};
use banger_api::vm::{VmAction, VmState};
use banger_api::{ApiError, ErrorCode, OpId};
use banger_engine::Engine;
use banger_engine::ops::Op;
use banger_engine::sim::world::When;
use banger_engine::sim::{GuestBehavior, Sim};

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{Before, act, fault, kinds, prepared};

fn request(name: &str) -> ImageCommitRequest {
    ImageCommitRequest { vm: "web".into(), name: name.into(), replace: false }
}

async fn begin(engine: &Engine, name: &str) -> Result<std::sync::Arc<Op>, ApiError> {
    let accepted = engine.commit_image(request(name)).await?;
    Ok(engine.follow(&accepted.operation.unwrap()).unwrap())
}

async fn commit(engine: &Engine, _: &Sim) {
    // The test checks what is left.
    if let Ok(op) = begin(engine, "mine").await {
        let _ = op.wait().await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Yes,
    No,
}

/// The VM is as it was, and all operations have ended.
fn check(machine: &Machine, start: &Machine, case: &str) -> Made {
    assert_eq!(machine.vm(), start.vm(), "{case}");
    assert_eq!(kinds(machine), kinds(start), "{case}");
    let world = machine.world();
    assert!(world.unfinished.is_empty(), "{case}: {:?}", world.unfinished);
    let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
    assert_eq!(open, 0, "{case}: operations that have not ended");
    if world.fetched.contains_key("image:mine") { Made::Yes } else { Made::No }
}

#[test]
fn a_commit_makes_an_image_and_leaves_the_vm() {
    let (machine, start) = (prepared(Before::Stopped), prepared(Before::Stopped));
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let id = begin(engine, "mine").await.unwrap().wait().await.unwrap().unwrap();
        let image = engine.image("mine").await.unwrap();
        let from = image.committed.unwrap();
        assert_eq!((image.id.as_str(), from.vm.name.as_str()), (id.as_str(), "web"));
        assert_eq!((from.base_name.as_str(), image.built), (crate::IMAGE, None));
        let taken = begin(engine, "mine").await.err().unwrap();
        assert_eq!(taken.code, ErrorCode::NameTaken);
        let replaced = ImageCommitRequest { replace: true, ..request("mine") };
        let accepted = engine.commit_image(replaced).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        assert_ne!(op.wait().await.unwrap().unwrap(), id);
        let missing = ImageCommitRequest { vm: "nope".into(), ..request("other") };
        assert_eq!(engine.commit_image(missing).await.unwrap_err().code, ErrorCode::NotFound);
    });
    // The first start is not in this comparison.
    assert_eq!(check(&machine, &start, "done"), Made::Yes);
}

#[test]
fn a_vm_that_is_up_is_refused_with_what_to_do() {
    for (before, word) in [(Before::Running, "running"), (Before::Paused, "paused")] {
        let (machine, start) = (prepared(before), prepared(before));
        machine.daemon(DaemonFault::None, &[], async |engine, _| {
            let error = begin(engine, "mine").await.err().unwrap();
            assert_eq!(error.code, ErrorCode::WrongState);
            assert_eq!(error.message, format!("cannot commit `web`: it is {word}"));
            assert!(error.hint().unwrap().contains("banger vm stop web"), "{error:?}");
        });
        assert_eq!(check(&machine, &start, word), Made::No);
    }
}

#[test]
fn killed_at_every_event() {
    let start = prepared(Before::Stopped);
    let whole = start.copy().daemon(DaemonFault::None, &[], commit).events;
    assert!(whole >= 5, "only {whole} events");
    let mut outcomes = Vec::new();
    for event in 0..whole {
        let case = format!("killed at event {event} of {whole}");
        let machine = start.copy();
        let report = machine.daemon(DaemonFault::KillAt(event), &[], commit);
        assert_eq!(report.ended, Ended::Killed, "{case}");
        machine.daemon(DaemonFault::KillAt(event % 3), &[], async |_, _| ());
        machine.daemon(DaemonFault::None, &[], async |_, _| ());
        outcomes.push(check(&machine, &start, &case));
        // The VM starts and goes as ever.
        machine.daemon(DaemonFault::None, &[], async |engine, _| {
            act(engine, VmAction::Start {}).await;
            assert_eq!(engine.show("web").await.unwrap().summary.state, VmState::Running, "{case}");
            act(engine, VmAction::Delete { force: true }).await;
        });
        assert_eq!(kinds(&machine), [""; 0], "{case}");
    }
    let published = outcomes.iter().position(|made| *made == Made::Yes).unwrap();
    assert!(outcomes.iter().skip(published).all(|made| *made == Made::Yes), "{outcomes:?}");
}

#[test]
fn effects_and_commits_fail() {
    let start = prepared(Before::Stopped);
    let report = start.copy().daemon(DaemonFault::None, &[], commit);
    assert!(report.tried.iter().any(|effect| effect == "commit"), "{:?}", report.tried);
    for effect in &report.tried {
        for when in [When::Before, When::After] {
            let machine = start.copy();
            machine.daemon(DaemonFault::None, &[fault(effect, when, 1)], commit);
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            check(&machine, &start, &format!("`{effect}` fails {when:?}"));
        }
    }
    for commit_number in 0..report.commits {
        for daemon_fault in
            [DaemonFault::FailCommit(commit_number), DaemonFault::FailCommitsFrom(commit_number)]
        {
            let machine = start.copy();
            machine.daemon(daemon_fault, &[], commit);
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            check(&machine, &start, &format!("{daemon_fault:?}"));
        }
    }
}

async fn result(engine: &Engine, id: &OpId) -> Result<Option<String>, ApiError> {
    engine.follow(id).unwrap().wait().await
}

/// A commit that does not end by itself.
async fn endless(engine: &Engine, sim: &Sim) -> std::sync::Arc<Op> {
    sim.set_behavior("mine", GuestBehavior::Silent);
    let op = begin(engine, "mine").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!op.has_ended());
    op
}

#[test]
fn requests_to_the_vm_wait_and_a_cancel_lets_them_go_on() {
    let (machine, start) = (prepared(Before::Stopped), prepared(Before::Stopped));
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        let op = endless(engine, sim).await;
        let second = begin(engine, "second").await.unwrap().wait().await.unwrap_err();
        assert_eq!(second.code, ErrorCode::Busy, "{second}");
        let start = engine.request("web", VmAction::Start {}).await.unwrap().operation.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let shown = engine.show("web").await.unwrap().summary;
        assert_eq!((shown.state, shown.operation), (VmState::Stopped, Some(op.id.clone())));
        assert_eq!(engine.cancel(&op.id).await.unwrap().effect, CancelEffect::Cancelling);
        let error = op.wait().await.unwrap_err();
        assert_eq!(error.message, "commit of image `mine` was cancelled");
        result(engine, &start).await.unwrap();
        act(engine, VmAction::Stop { grace_ms: 5000 }).await;
    });
    assert_eq!(kinds(&machine), kinds(&start));
    assert!(machine.world().unfinished.is_empty());
}

#[test]
fn a_forced_delete_cancels_the_commit() {
    let machine = prepared(Before::Stopped);
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        let op = endless(engine, sim).await;
        let delete = engine.request("web", VmAction::Delete { force: true }).await.unwrap();
        assert_eq!(op.wait().await.unwrap_err().code, ErrorCode::Cancelled);
        result(engine, &delete.operation.unwrap()).await.unwrap();
    });
    assert_eq!((machine.vm(), kinds(&machine).len()), (None, 0));
    assert!(machine.world().unfinished.is_empty());
}
