//! Operations on images and kernels: the daemon is killed at each event, each effect fails, each
//! commit fails. Afterwards every operation has ended on record, no unfinished file is left, and
//! the names on the host are those before or after the operation.

use banger_api::disk::{DiskPrune, Stored, StoredRef};
use banger_api::images::{ImageKernel, ImageRegisterRequest, Rebuild, TakenName};
use banger_api::operation::{OpState, Subject};
use banger_api::{ApiError, ErrorCode, Hint, OpId};
use banger_engine::Engine;
use banger_engine::drivers::KernelFiles;
use banger_engine::sim::world::{Fault, When};

use crate::machine::{DaemonFault, Ended, Machine};

/// Operations; `replace` moves the only name of an image.
const SCENARIOS: [&str; 16] = [
    "register_image",
    "promote_image",
    "pull_image",
    "pull_kernel",
    "build_kernel",
    "import_image",
    "import_image replace",
    "import_kernel",
    "import_kernel replace",
    "tag_image",
    "tag_image replace",
    "untag_image",
    "delete_image",
    "delete_kernel",
    "untag_kernel",
    "prune",
];

/// The image of a registry, whose layer a prune removes.
const PULLED: &str = "ghcr.io/acme/app:1";

async fn follow(engine: &Engine, operation: Option<OpId>) -> Result<(), ApiError> {
    match operation.and_then(|id| engine.follow(&id)) {
        Some(op) => op.wait().await.map(|_| ()),
        None => Ok(()),
    }
}

async fn carry_out(kind: &str, engine: &Engine) -> Result<(), ApiError> {
    let taken = TakenName::Refuse;
    let accepted = match kind {
        "pull_image" => engine.pull_image("debian", Rebuild::IfOutdated).await?,
        "pull_kernel" => engine.pull_kernel("debian-cloud").await?,
        "build_kernel" => engine.build_kernel("fast").await?,
        "import_image" => engine.import_image("/x.tar".as_ref(), "mine", taken).await?,
        "register_image" => engine.register_image(register("mine")).await?,
        "promote_image" => engine.promote_image("old").await?,
        "import_image replace" => {
            engine.import_image("/x.tar".as_ref(), "old", TakenName::Replace).await?
        }
        "import_kernel" => engine.import_kernel(kernel_files(), "mine", taken).await?,
        "import_kernel replace" => {
            engine.import_kernel(kernel_files(), "debian-cloud", TakenName::Replace).await?
        }
        "tag_image replace" => {
            return engine.tag_image("second", "old", TakenName::Replace).await.map(|_| ());
        }
        "tag_image" => return engine.tag_image("old", "new", taken).await.map(|_| ()),
        "untag_image" => return engine.untag_image("second").await.map(|_| ()),
        "delete_kernel" => return engine.delete_kernel("debian-cloud").await.map(|_| ()),
        "untag_kernel" => return engine.delete_kernel("other").await.map(|_| ()),
        "delete_image" => return engine.delete_image("old").await.map(|_| ()),
        "prune" => return prune(engine).await,
        other => panic!("{other}"),
    };
    follow(engine, accepted.operation).await
}

/// Removes all that nothing uses, as `system prune --all` does.
async fn prune(engine: &Engine) -> Result<(), ApiError> {
    let mut due = engine.disk_usage().await?.objects;
    due.retain(|object| object.removable && object.kind.is_pruned(true));
    let objects = due.into_iter().map(|Stored { kind, id, .. }| StoredRef { kind, id }).collect();
    let pruned = engine.prune_disk(DiskPrune { objects }).await?;
    pruned.objects.into_iter().find_map(|object| object.error).map_or(Ok(()), Err)
}

fn register(name: &str) -> ImageRegisterRequest {
    ImageRegisterRequest {
        rootfs: "/x.ext4".into(),
        kernel: Some(ImageKernel::Contained),
        name: name.into(),
        replace: false,
    }
}

fn kernel_files() -> KernelFiles {
    KernelFiles { path: "/vmlinuz".into(), modules: None }
}

/// A machine with an image of two names, one of one name, and a kernel if `kind` deletes one.
fn prepared(kind: &str) -> Machine {
    let machine = Machine::default();
    let report = machine.daemon(DaemonFault::None, &[], async |engine, _| {
        for (path, name) in [("/old.tar", "old"), ("/first.tar", "first")] {
            if kind == "promote_image" && name == "old" {
                let accepted = engine.register_image(register(name)).await.unwrap();
                follow(engine, accepted.operation).await.unwrap();
                continue;
            }
            let accepted =
                engine.import_image(path.as_ref(), name, TakenName::Refuse).await.unwrap();
            follow(engine, accepted.operation).await.unwrap();
        }
        engine.tag_image("first", "second", TakenName::Refuse).await.unwrap();
        if kind == "untag_kernel" {
            for name in ["mine", "other"] {
                let files = kernel_files();
                let accepted = engine.import_kernel(files, name, TakenName::Refuse).await.unwrap();
                follow(engine, accepted.operation).await.unwrap();
            }
        }
        if kind == "prune" {
            let accepted = engine.pull_image(PULLED, Rebuild::IfOutdated).await.unwrap();
            follow(engine, accepted.operation).await.unwrap();
            engine.delete_image(PULLED).await.unwrap();
            engine.delete_image("old").await.unwrap();
            engine.delete_image("first").await.unwrap();
            engine.delete_image("second").await.unwrap();
        }
        if ["delete_kernel", "import_kernel replace"].contains(&kind) {
            let accepted = engine.pull_kernel("debian-cloud").await.unwrap();
            follow(engine, accepted.operation).await.unwrap();
        }
    });
    assert_eq!(report.ended, Ended::Idle);
    machine
}

/// No file is unfinished, and each operation has ended with a result that matches the host.
fn check(machine: &Machine, kind: &str, case: &str) {
    let world = machine.world();
    assert!(world.unfinished.is_empty(), "{case}: {:?}", world.unfinished);
    let disk = machine.disk();
    for op in &disk.ops {
        assert_ne!(op.state, OpState::Running, "{case}: {op:?}");
        let of_host = matches!(op.subject, Subject::Host);
        assert_eq!(of_host, op.kind == "prune", "{case}: {op:?}");
        assert!(!matches!(op.subject, Subject::Vm(_)), "{case}: {op:?}");
    }
    let last = disk.ops.last().filter(|op| kind.starts_with(&op.kind));
    if let Some(made) = last.and_then(|op| op.made.as_ref()) {
        assert!(world.fetched.values().any(|id| id == made), "{case}: {made} is not there");
    }
}

#[test]
fn killed_at_every_event() {
    for kind in SCENARIOS {
        let start = prepared(kind);
        let before = start.disk().ops.len();
        let work = async |engine: &Engine, _: &_| drop(carry_out(kind, engine).await);
        let completed = start.copy();
        let whole = completed.daemon(DaemonFault::None, &[], work).events;
        let names = [start.world().fetched, completed.world().fetched];
        assert_ne!(names[0], names[1], "{kind} has no effect");
        assert!(whole >= 4, "{kind} has only {whole} events");
        let mut interrupted = 0;
        for event in 0..whole {
            let case = format!("{kind}, killed at event {event} of {whole}");
            let machine = start.copy();
            assert_eq!(machine.daemon(DaemonFault::KillAt(event), &[], work).ended, Ended::Killed);
            // The daemon that recovers is killed once, too.
            machine.daemon(DaemonFault::KillAt(event % 3), &[], async |_, _| ());
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            check(&machine, kind, &case);
            let found = machine.world().fetched;
            assert!(names.contains(&found), "{case}: neither before nor after: {found:?}");
            let op = machine.disk().ops.get(before).cloned();
            if let Some(error) = op.and_then(|op| op.error) {
                assert_eq!(error.code, ErrorCode::Interrupted, "{case}");
                interrupted += 1;
            }
            // The same request succeeds now, or has no effect.
            machine.daemon(DaemonFault::None, &[], work);
            check(&machine, kind, &case);
            assert_eq!(machine.world().fetched, names[1], "{case}: after the same request again");
        }
        assert!(interrupted > 0, "{kind} was never interrupted");
    }
}

#[test]
fn every_effect_and_every_commit_fails() {
    for kind in SCENARIOS {
        let start = prepared(kind);
        let work = async |engine: &Engine, _: &_| drop(carry_out(kind, engine).await);
        let whole = start.copy().daemon(DaemonFault::None, &[], work);
        let faults = whole.tried.iter().flat_map(|effect| {
            [When::Before, When::After]
                .map(|when| vec![Fault { effect: effect.clone(), when, times: 1 }])
        });
        let daemon_faults = (0..whole.commits)
            .flat_map(|n| [DaemonFault::FailCommit(n), DaemonFault::FailCommitsFrom(n)])
            .map(|daemon_fault| (daemon_fault, Vec::new()));
        for (daemon_fault, faults) in
            faults.map(|faults| (DaemonFault::None, faults)).chain(daemon_faults)
        {
            let case = format!("{kind}, {daemon_fault:?}, {faults:?}");
            let machine = start.copy();
            assert_eq!(machine.daemon(daemon_fault, &faults, work).ended, Ended::Idle, "{case}");
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            check(&machine, kind, &case);
        }
    }
}

/// Files that cannot be removed are named in the operation, and the next daemon removes them.
#[test]
fn unfinished_files_that_stay_are_named() {
    let machine = Machine::default();
    let work = async |engine: &Engine, _: &_| drop(carry_out("pull_image", engine).await);
    let events = machine.copy().daemon(DaemonFault::None, &[], work).events;
    // The last event but two: the file is there, and is neither published nor removed.
    machine.daemon(DaemonFault::KillAt(events - 4), &[], work);
    assert_eq!(machine.world().unfinished.len(), 1);
    let fault = Fault { effect: "clean".into(), when: When::Before, times: 1 };
    machine.daemon(DaemonFault::None, &[fault], async |_, _| ());
    let error = machine.disk().ops[0].error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::Interrupted);
    assert!(error.causes[0].contains("unfinished files are left"), "{error:?}");
    machine.daemon(DaemonFault::None, &[], async |_, _| ());
    check(&machine, "pull_image", "after the next daemon");
}

/// A pull for which there is no space says what a prune would free.
#[test]
fn a_full_disk_names_what_a_prune_frees() {
    let machine = prepared("pull_image");
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let pull = async |name: &str| {
            let accepted = engine.pull_image(name, Rebuild::IfOutdated).await.unwrap();
            follow(engine, accepted.operation).await
        };
        let error = pull("ghcr.io/acme/too-large:1").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace);
        let two_images = 128 << 20;
        let hint = Hint::Prune { frees_bytes: 0, all_frees_bytes: two_images };
        assert_eq!(error.hints, [hint]);
        // A layer of a registry's image is removed without `--all`.
        pull(PULLED).await.unwrap();
        let error = pull("ghcr.io/acme/too-large:1").await.unwrap_err();
        let all_frees_bytes = two_images + (128 << 20);
        assert_eq!(error.hints, [Hint::Prune { frees_bytes: 64 << 20, all_frees_bytes }]);
        prune(engine).await.unwrap();
        let usage = engine.disk_usage().await.unwrap();
        assert_eq!(usage.pruned_bytes(true), 0, "{usage:?}");
    });
    assert_eq!(machine.world().fetched.len(), 0);
}

/// A deletion makes room on a full disk, where the store cannot be written.
#[test]
fn an_image_is_deleted_while_no_commit_succeeds() {
    let machine = prepared("delete_image");
    machine.daemon(DaemonFault::FailCommitsFrom(0), &[], async |engine, _| {
        engine.delete_image("old").await.unwrap();
    });
    assert!(!machine.world().fetched.contains_key("image:old"));
}
