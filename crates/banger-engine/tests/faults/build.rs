//! Image builds: the daemon is killed at each event, each effect fails, each commit fails, the
//! build is cancelled, its VM is deleted. Afterwards no VM is left, on record or on the host, no
//! unfinished file, and the image is there with its name or not at all.

use std::time::Duration;

use banger_api::ApiError;
use banger_api::ErrorCode;
use banger_api::build::{BuildCopy, ImageBuildRequest};
use banger_api::images::{Rebuild, TakenName};
use banger_api::operation::{OpEventKind, OpState};
use banger_api::vm::VmAction;
use banger_engine::Engine;
use banger_engine::sim::world::When;
use banger_engine::sim::{GuestBehavior, Sim};

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{fault, kinds};

fn request() -> ImageBuildRequest {
    ImageBuildRequest {
        name: "dev".into(),
        from: "base".into(),
        copies: vec![BuildCopy { source: "/site".into(), target: "/srv/site".into() }],
        packages: vec!["git".into()],
        script: Some("echo hello\n".into()),
        ..Default::default()
    }
}

async fn build(engine: &Engine, request: ImageBuildRequest) -> Result<Option<String>, ApiError> {
    let accepted = engine.build_image(request).await?;
    let op = engine.follow(&accepted.operation.unwrap()).unwrap();
    op.wait().await
}

async fn work(engine: &Engine, _: &Sim) {
    // The test checks what is left.
    let _ = build(engine, request()).await;
}

/// A machine with the image `base` and a kernel.
fn prepared() -> Machine {
    let machine = Machine::default();
    let report = machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let taken = TakenName::Refuse;
        let import = engine.import_image("/base.tar".as_ref(), "base", taken).await.unwrap();
        let kernel = engine.pull_kernel("debian-cloud").await.unwrap();
        for accepted in [import, kernel] {
            let op = engine.follow(&accepted.operation.unwrap()).unwrap();
            op.wait().await.unwrap();
        }
    });
    assert_eq!(report.ended, Ended::Idle);
    machine
}

/// Whether an image was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Built {
    Yes,
    No,
}

/// Only the image is left, or nothing.
fn check(machine: &Machine, case: &str) -> Built {
    assert_eq!(machine.vm(), None, "{case}: a VM is left");
    assert_eq!(kinds(machine), [""; 0], "{case}: objects of a VM are left");
    let world = machine.world();
    assert!(world.unfinished.is_empty(), "{case}: {:?}", world.unfinished);
    let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
    assert_eq!(open, 0, "{case}: operations that have not ended");
    if world.fetched.contains_key("image:dev") { Built::Yes } else { Built::No }
}

#[test]
fn a_build_leaves_the_image_only_and_the_same_inputs_are_built_once() {
    let machine = prepared();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let accepted = engine.build_image(request()).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        let id = op.wait().await.unwrap().unwrap();
        let notes: Vec<String> = op
            .events_after(0)
            .into_iter()
            .filter_map(|event| match event.what {
                OpEventKind::Note { text } => Some(text),
                _ => None,
            })
            .collect();
        assert_eq!(notes, ["Setting up git (1.0) ...", "hello"]);
        assert_eq!(build(engine, request()).await.unwrap(), Some(id.clone()), "already built");
        let other = ImageBuildRequest { name: "again".into(), ..request() };
        assert_eq!(build(engine, other).await.unwrap(), Some(id.clone()), "under another name");
        let image = engine.image("again").await.unwrap();
        assert_eq!(image.names, ["again", "dev"]);
        let changed = ImageBuildRequest { script: Some("echo x\n".into()), ..request() };
        let error = build(engine, changed.clone()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NameTaken, "{error}");
        let replaced = ImageBuildRequest { replace: true, ..changed };
        let new = build(engine, replaced.clone()).await.unwrap().unwrap();
        assert_ne!(new, id);
        let anew = ImageBuildRequest { no_cache: true, ..replaced };
        assert_ne!(build(engine, anew).await.unwrap().unwrap(), new, "built again");
    });
    assert_eq!(check(&machine, "after all"), Built::Yes);
}

#[test]
fn a_recipe_is_built_from_an_image_of_a_registry() {
    let machine = prepared();
    let pull = async |engine: &Engine, rebuild: Rebuild| {
        let accepted = engine.pull_image("void", rebuild).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap().unwrap()
    };
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let id = pull(engine, Rebuild::IfOutdated).await;
        assert_eq!(pull(engine, Rebuild::IfOutdated).await, id, "already built");
        let image = engine.image("void").await.unwrap();
        assert_eq!((image.id.as_str(), image.names), (id.as_str(), vec!["void".to_owned()]));
        assert!(engine.image("ghcr.io/void-linux/void-glibc-full:latest").await.is_ok());
        assert_ne!(pull(engine, Rebuild::Always).await, id, "built again");
    });
    assert_eq!(check(&machine, "after all"), Built::No);
    // A registry that cannot be reached.
    machine.copy().daemon(
        DaemonFault::None,
        &[fault("fetch", When::Before, 1)],
        async |engine, _| {
            let accepted = engine.pull_image("alpine", Rebuild::IfOutdated).await.unwrap();
            let op = engine.follow(&accepted.operation.unwrap()).unwrap();
            let hint = op.wait().await.unwrap_err().hint().unwrap();
            assert!(hint.contains("banger image import --name alpine"), "{hint}");
        },
    );
    let work = async |engine: &Engine, _: &Sim| {
        let accepted = engine.pull_image("alpine", Rebuild::IfOutdated).await.unwrap();
        let _ = engine.follow(&accepted.operation.unwrap()).unwrap().wait().await;
    };
    let whole = machine.copy().daemon(DaemonFault::None, &[], work).events;
    assert!(whole > 20, "only {whole} events");
    for event in 0..whole {
        let case = format!("killed at event {event} of {whole}");
        let machine = machine.copy();
        assert_eq!(machine.daemon(DaemonFault::KillAt(event), &[], work).ended, Ended::Killed);
        machine.daemon(DaemonFault::None, &[], async |_, _| ());
        check(&machine, &case);
    }
}

#[test]
fn a_failed_build_leaves_nothing_but_its_log_and_the_vm_if_asked() {
    for keep in [false, true] {
        let machine = prepared();
        machine.daemon(DaemonFault::None, &[], async |engine, _| {
            let script = Some("exit 3\n".into());
            let failing = ImageBuildRequest { script, keep, ..request() };
            let error = build(engine, failing).await.unwrap_err();
            assert_eq!(error.message, "the script failed with exit code 3");
            let hints = error.hints.iter().map(banger_api::hint::Hint::words);
            let hints = hints.collect::<Vec<_>>().join("\n");
            assert!(hints.contains("/nonexistent/dev.log"), "{hints}");
            assert_eq!(hints.contains("vm delete"), keep, "{hints}");
        });
        if keep {
            let name = machine.vm().unwrap().plan.name.to_string();
            assert!(name.starts_with("build-"), "{name}");
            assert!(!kinds(&machine).contains(&"work_disk".to_owned()), "`/root` is of the image");
            machine.daemon(DaemonFault::None, &[], async |engine, _| {
                assert!(machine.vm().is_some(), "a later daemon keeps it");
                let action = VmAction::Delete { force: true };
                let accepted = engine.request(&name, action).await.unwrap();
                let op = engine.follow(&accepted.operation.unwrap()).unwrap();
                op.wait().await.unwrap();
            });
        }
        assert_eq!(check(&machine, &format!("keep {keep}")), Built::No);
    }
}

#[test]
fn killed_at_every_event() {
    let start = prepared();
    let whole = start.copy().daemon(DaemonFault::None, &[], work).events;
    assert!(whole > 40, "only {whole} events");
    let mut outcomes = Vec::new();
    for event in 0..whole {
        let case = format!("killed at event {event} of {whole}");
        let machine = start.copy();
        assert_eq!(machine.daemon(DaemonFault::KillAt(event), &[], work).ended, Ended::Killed);
        // The daemon that recovers is killed once, too.
        machine.daemon(DaemonFault::KillAt(event % 11), &[], async |_, _| ());
        machine.daemon(DaemonFault::None, &[], async |_, _| ());
        outcomes.push(check(&machine, &case));
        machine.daemon(DaemonFault::None, &[], work);
        assert_eq!(check(&machine, &format!("{case}, again")), Built::Yes);
    }
    let published = outcomes.iter().position(|built| *built == Built::Yes).unwrap();
    assert!(published > 30, "{outcomes:?}");
    assert!(outcomes.iter().skip(published).all(|built| *built == Built::Yes), "{outcomes:?}");
}

#[test]
fn every_effect_fails_before_and_after() {
    let start = prepared();
    let tried = start.copy().daemon(DaemonFault::None, &[], work).tried;
    for effect in ["build inputs", "build log", "guest copy", "the script", "capture"] {
        assert!(tried.iter().any(|one| one == effect), "{effect} of {tried:?}");
    }
    for effect in tried {
        for when in [When::Before, When::After] {
            let case = format!("`{effect}` fails {when:?}");
            let machine = start.copy();
            machine.daemon(DaemonFault::None, &[fault(&effect, when, 1)], work);
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            // A VM that cannot be removed is broken: its user sees it, and the next daemon tries
            // once more.
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            check(&machine, &case);
        }
    }
}

#[test]
fn every_commit_fails() {
    let start = prepared();
    let commits = start.copy().daemon(DaemonFault::None, &[], work).commits;
    for commit in 0..commits {
        for daemon_fault in [DaemonFault::FailCommit(commit), DaemonFault::FailCommitsFrom(commit)]
        {
            let machine = start.copy();
            assert_eq!(machine.daemon(daemon_fault, &[], work).ended, Ended::Idle);
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            check(&machine, &format!("{daemon_fault:?}"));
        }
    }
}

/// Lets each task that can run do so once. (`yield_now` waits until none can run.)
async fn turn() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Cancels after each turn of the scheduler during a build.
#[test]
fn cancelled_at_every_point() {
    let start = prepared();
    let mut points = 0;
    loop {
        let machine = start.copy();
        let mut reached = false;
        machine.daemon_in_turns(async |engine, _| {
            let accepted = engine.build_image(request()).await.unwrap();
            let op = engine.follow(&accepted.operation.unwrap()).unwrap();
            for _ in 0..points {
                if op.has_ended() {
                    return;
                }
                turn().await;
            }
            reached = !op.has_ended();
            let _ = engine.cancel(&op.id).await.unwrap();
            if let Err(error) = op.wait().await {
                assert_eq!(error.code, ErrorCode::Cancelled, "{error:?}");
            }
        });
        check(&machine, &format!("cancelled after {points} turns"));
        if !reached {
            break;
        }
        points += 1;
    }
    assert!(points > 20, "only {points} points");
}

#[test]
fn a_script_whose_guest_waits_for_space_fails() {
    let endless = ImageBuildRequest { script: Some("sleep infinity\n".into()), ..request() };
    let machine = prepared();
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        let accepted = engine.build_image(endless.clone()).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        let vm = format!("build-{}", op.id.as_str().strip_prefix("op-").unwrap());
        let behave = |behavior| sim.set_behavior(&vm, behavior);
        // A pause that ends in time does not matter.
        tokio::time::sleep(Duration::from_secs(100)).await;
        behave(GuestBehavior::DiskFull);
        tokio::time::sleep(Duration::from_secs(10)).await;
        behave(GuestBehavior::Good);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!op.has_ended());
        behave(GuestBehavior::DiskFull);
        let error = op.wait().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace, "{error:?}");
        assert_eq!(error.message, "the guest is paused: the disk is full");
    });
    assert_eq!(check(&machine, "the disk is full"), Built::No);
}

#[test]
fn a_script_that_never_ends_is_cancelled_or_loses_its_vm() {
    let endless = || ImageBuildRequest { script: Some("sleep infinity\n".into()), ..request() };
    let machine = prepared();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let accepted = engine.build_image(endless()).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!op.has_ended());
        engine.cancel(&op.id).await.unwrap();
        let error = op.wait().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled);
        assert_eq!(error.message, "build of image `dev` was cancelled");
    });
    assert_eq!(check(&machine, "cancelled"), Built::No);
}
