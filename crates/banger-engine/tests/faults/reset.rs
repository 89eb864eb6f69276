//! Fault loops over a reset: whatever fails, and wherever the daemon is killed, the VM has the old
//! root disk or the new one, with the machine id and host key that belong to it.

use banger_api::operation::OpState;
use banger_api::vm::{VmAction, VmState};
use banger_engine::Engine;
use banger_engine::sim::Sim;
use banger_engine::sim::world::When;

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{Before, act, fault, kinds, prepared};

async fn reset(engine: &Engine, _: &Sim) {
    act(engine, VmAction::Reset {}).await;
}

/// Root disk, SSH host key, and machine id.
type System = (String, String, String);

fn system(machine: &Machine) -> System {
    let vm = machine.vm().unwrap();
    let world = machine.world();
    let object = |kind: &str| {
        let found = world.get(kind, &vm.plan.id);
        found.unwrap_or_else(|| panic!("there is no {kind}")).to_owned()
    };
    (object("root"), object("identity"), vm.plan.machine_id)
}

/// Which disk a VM has.
#[derive(Debug, PartialEq, Eq)]
enum Has {
    Old,
    New,
}

/// Store and host agree, and everything but the system is as it was.
fn check(machine: &Machine, start: &Machine, case: &str) -> Has {
    let (vm, before) = (machine.vm().unwrap(), start.vm().unwrap());
    assert_eq!((vm.state, vm.reset, &vm.run), (VmState::Stopped, None, &None), "{case}");
    assert_eq!(kinds(machine), kinds(start), "{case}");
    assert_eq!((&vm.spec, &vm.plan.name), (&before.spec, &before.plan.name), "{case}");
    let work = |machine: &Machine| {
        machine.world().get("work_disk", &vm.plan.id).map(str::to_owned).unwrap()
    };
    assert_eq!(work(machine), work(start), "{case}");
    let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
    assert_eq!(open, 0, "{case}");
    let (root, key, id) = system(machine);
    let (old_root, old_key, old_id) = system(start);
    let changed = [root != old_root, key != old_key, id != old_id];
    match changed {
        [false, false, false] => Has::Old,
        [true, true, true] => Has::New,
        _ => panic!("{case}: root disk, host key, machine id changed: {changed:?}"),
    }
}

/// A later daemon settles what was left; the VM starts and can be deleted.
fn recovers(machine: &Machine, start: &Machine, case: &str) -> Has {
    machine.daemon(DaemonFault::None, &[], async |_, _| ());
    let has = check(machine, start, case);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        act(engine, VmAction::Start {}).await;
        assert_eq!(engine.show("web").await.unwrap().summary.state, VmState::Running, "{case}");
        act(engine, VmAction::Delete { force: true }).await;
    });
    assert_eq!(machine.vm(), None, "{case}");
    assert_eq!(kinds(machine), [""; 0], "{case}: left after a delete");
    has
}

#[test]
fn a_reset_replaces_the_root_disk_and_the_identity_only() {
    let (machine, start) = (prepared(Before::Stopped), prepared(Before::Stopped));
    machine.daemon(DaemonFault::None, &[], reset);
    assert_eq!(check(&machine, &start, "once"), Has::New);
    let once = machine.copy();
    machine.daemon(DaemonFault::None, &[], reset);
    assert_eq!(check(&machine, &once, "twice"), Has::New);
}

#[test]
fn killed_at_every_event() {
    let start = prepared(Before::Stopped);
    let whole = start.copy().daemon(DaemonFault::None, &[], reset).events;
    assert!(whole > 10, "only {whole} events");
    let mut outcomes = Vec::new();
    for event in 0..whole {
        let case = format!("killed at event {event} of {whole}");
        let machine = start.copy();
        assert_eq!(machine.daemon(DaemonFault::KillAt(event), &[], reset).ended, Ended::Killed);
        assert!(machine.world().get("root", &start.vm().unwrap().plan.id).is_some(), "{case}");
        // The daemon that recovers is killed once, too.
        machine.daemon(DaemonFault::KillAt(event % 7), &[], async |_, _| ());
        outcomes.push(recovers(&machine, &start, &case));
    }
    let committed = outcomes.iter().position(|has| *has == Has::New).unwrap();
    assert!(committed > 2, "{outcomes:?}");
    assert!(outcomes.iter().skip(committed).all(|has| *has == Has::New), "{outcomes:?}");
}

#[test]
fn every_effect_fails_before_and_after() {
    let start = prepared(Before::Stopped);
    let idle = start.copy().daemon(DaemonFault::None, &[], async |_, _| ()).tried;
    let mut tried = start.copy().daemon(DaemonFault::None, &[], reset).tried;
    // Effects of the daemon's start are not part of the reset.
    tried.retain(|effect| !idle.contains(effect));
    for effect in ["new_root", "replace root", "undo identity", "identity"] {
        assert!(tried.iter().any(|one| one == effect), "{effect} of {tried:?}");
    }
    for effect in tried {
        for (when, times) in [(When::Before, 1), (When::After, 1), (When::After, u32::MAX)] {
            let case = format!("`{effect}` fails {when:?} {times}x");
            let machine = start.copy();
            machine.daemon(DaemonFault::None, &[fault(&effect, when, times)], reset);
            let error = machine.disk().ops.last().cloned().unwrap().error;
            let error = error.unwrap_or_else(|| panic!("{case}: no error"));
            let shown = [vec![error.message], error.causes].concat().join("\n");
            assert!(shown.contains(&format!("`{effect}`")), "{case}: {shown}");
            let expected = if effect == "new_root" { Has::Old } else { Has::New };
            let text = match expected {
                Has::Old => "the root disk is as it was",
                Has::New => "its next start completes it",
            };
            assert!(shown.contains(text), "{case}: {shown}");
            // By a start of the same daemon, or by the next daemon.
            let again = machine.copy();
            again.daemon(
                DaemonFault::None,
                &[fault(&effect, when, times.min(2))],
                async |engine, sim| {
                    reset(engine, sim).await;
                    act(engine, VmAction::Start {}).await;
                    act(engine, VmAction::STOP).await;
                },
            );
            recovers(&again, &start, &case);
            assert_eq!(recovers(&machine, &start, &case), expected, "{case}");
        }
    }
}

#[test]
fn a_failed_undo_of_the_new_disk_is_repeated() {
    let start = prepared(Before::Stopped);
    let faults =
        [fault("new_root", When::After, 1), fault("undo new_root", When::Before, u32::MAX)];
    let machine = start.copy();
    machine.daemon(DaemonFault::None, &faults, async |engine, sim| {
        reset(engine, sim).await;
        // The old disk works.
        act(engine, VmAction::Start {}).await;
        assert_eq!(engine.show("web").await.unwrap().summary.state, VmState::Running);
        act(engine, VmAction::STOP).await;
    });
    assert!(kinds(&machine).contains(&"new_root".to_owned()));
    let deleted = machine.copy();
    deleted.daemon(DaemonFault::None, &[], async |engine, _| {
        act(engine, VmAction::Delete { force: true }).await;
    });
    assert_eq!(kinds(&deleted), [""; 0]);
    assert_eq!(recovers(&machine, &start, "the next daemon"), Has::Old);
}

#[test]
fn every_commit_fails() {
    let start = prepared(Before::Stopped);
    let commits = start.copy().daemon(DaemonFault::None, &[], reset).commits;
    for commit in 0..commits {
        for daemon_fault in [DaemonFault::FailCommit(commit), DaemonFault::FailCommitsFrom(commit)]
        {
            let machine = start.copy();
            assert_eq!(machine.daemon(daemon_fault, &[], reset).ended, Ended::Idle);
            recovers(&machine, &start, &format!("{daemon_fault:?}"));
        }
    }
}

#[test]
fn a_reset_needs_a_stopped_vm_and_its_image() {
    let machine = prepared(Before::Running);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let error = engine.request("web", VmAction::Reset {}).await.unwrap_err();
        assert_eq!(error.message, "cannot reset `web`: it is running");
        assert!(error.hint().unwrap().contains("banger vm stop web"), "{error:?}");
        act(engine, VmAction::STOP).await;
    });
    let before = machine.copy();
    machine.lose_images();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let accepted = engine.request("web", VmAction::Reset {}).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        let error = op.wait().await.unwrap_err();
        let begin = format!("cannot reset `web`: its image `{}` (", crate::IMAGE);
        assert!(error.message.starts_with(&begin), "{error}");
        assert!(error.message.ends_with(") does not exist"), "{error}");
    });
    assert_eq!(machine.vm(), before.vm());
    assert_eq!(system(&machine), system(&before));
}
