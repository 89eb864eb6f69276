//! Fault loops over a change of the specification: afterwards the VM has the old or the new values,
//! on record and on the host alike, whatever failed and wherever the daemon was killed.

use banger_api::ErrorCode;
use banger_api::labels::{self, Labels};
use banger_api::operation::{OpEventKind, OpState};
use banger_api::publish::PortForward;
use banger_api::set::{SetVm, Unpublish};
use banger_api::vm::{VmAction, VmState};
use banger_engine::Engine;
use banger_engine::plan::VmSpec;
use banger_engine::sim::Sim;
use banger_engine::sim::world::When;

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{Before, act, fault, kinds, prepared};

fn port(text: &str) -> PortForward {
    text.parse().unwrap()
}

fn labels(texts: &[&str]) -> Labels {
    Labels::of(texts.iter().map(|text| labels::parse(text).unwrap())).unwrap()
}

/// Changes of a running VM that publishes `8080:80`: another port, no port, labels, and all at once
/// with values of the next start.
fn live_changes() -> Vec<SetVm> {
    let more = SetVm { publish: vec![port("9090:90")], ..SetVm::default() };
    let none = SetVm { unpublish: vec![Unpublish::All {}], ..SetVm::default() };
    let marked = SetVm { labels: labels(&["team=web", "urgent"]), ..SetVm::default() };
    let labels = labels(&["team=db"]);
    let mixed =
        SetVm { vcpus: Some(3), memory_mib: Some(1024), nat: Some(false), labels, ..more.clone() };
    vec![more, none, marked, mixed]
}

async fn set(engine: &Engine, set: &SetVm) {
    act(engine, VmAction::Set(Box::new(set.clone()))).await;
}

/// A VM that publishes no port at first.
fn unpublished() -> Machine {
    let machine = prepared(Before::Running);
    let none = SetVm { unpublish: vec![Unpublish::All {}], ..SetVm::default() };
    machine.daemon(DaemonFault::None, &[], async |engine, _| set(engine, &none).await);
    assert!(machine.vm().unwrap().spec.publish.is_empty());
    machine
}

/// Where a scenario begins and what is changed.
fn scenarios() -> Vec<(Machine, SetVm)> {
    let mut all: Vec<(Machine, SetVm)> =
        live_changes().into_iter().map(|change| (prepared(Before::Running), change)).collect();
    all.push((unpublished(), SetVm { publish: vec![port("7:7")], ..SetVm::default() }));
    all
}

/// The new values of a VM that was changed without any fault.
fn changed(start: &Machine, change: &SetVm) -> VmSpec {
    let machine = start.copy();
    machine.daemon(DaemonFault::None, &[], async |engine, _| set(engine, change).await);
    agrees(&machine, "no fault");
    machine.vm().unwrap().spec
}

/// Host and store have the same set of ports; returns the requested values.
fn agrees(machine: &Machine, case: &str) -> VmSpec {
    let vm = machine.vm().unwrap();
    assert_eq!(vm.state, VmState::Running, "{case}");
    let run = vm.run.unwrap();
    assert_eq!(run.change, None, "{case}");
    assert_eq!(run.spec.publish, vm.spec.publish, "{case}");
    assert_eq!(run.spec.labels, vm.spec.labels, "{case}");
    let world = machine.world();
    for step in ["forwarder", "forwards"] {
        let there = world.get(step, &vm.plan.id);
        let on_record = run.steps.iter().any(|id| id.as_str() == step);
        assert_eq!(there.is_some(), !vm.spec.publish.is_empty(), "{case}: {step}");
        assert_eq!(on_record, there.is_some(), "{case}: {step} on record");
        if let Some(value) = there {
            let wanted = format!("{:?}", run.spec.publish);
            assert!(value.ends_with(&wanted), "{case}: {step} is {value}");
        }
    }
    let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
    assert_eq!(open, 0, "{case}");
    vm.spec
}

/// As `agrees`; nothing is left after a delete.
fn old_or_new(machine: &Machine, old: &VmSpec, new: &VmSpec, case: &str) {
    let now = agrees(machine, case);
    assert!(&now == old || &now == new, "{case}: neither old nor new: {now:?}");
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        act(engine, VmAction::Delete { force: true }).await;
    });
    assert_eq!(machine.vm(), None, "{case}");
    assert_eq!(kinds(machine), [""; 0], "{case}: left after a delete");
}

#[test]
fn killed_at_every_event() {
    for (start, change) in scenarios() {
        let (old, new) = (start.vm().unwrap().spec, changed(&start, &change));
        let work = async |engine: &Engine, _: &Sim| set(engine, &change).await;
        let whole = start.copy().daemon(DaemonFault::None, &[], work).events;
        assert!(whole > 5, "{change:?} has only {whole} events");
        for event in 0..whole {
            let case = format!("{change:?} killed at event {event} of {whole}");
            let machine = start.copy();
            assert_eq!(machine.daemon(DaemonFault::KillAt(event), &[], work).ended, Ended::Killed);
            // The daemon that recovers is killed once, too.
            machine.daemon(DaemonFault::KillAt(event % 7), &[], async |_, _| ());
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            old_or_new(&machine, &old, &new, &case);
        }
    }
}

#[test]
fn every_effect_fails_before_and_after() {
    for (start, change) in scenarios() {
        let (old, new) = (start.vm().unwrap().spec, changed(&start, &change));
        let work = async |engine: &Engine, _: &Sim| set(engine, &change).await;
        let idle = start.copy().daemon(DaemonFault::None, &[], async |_, _| ()).tried;
        let mut tried = start.copy().daemon(DaemonFault::None, &[], work).tried;
        // Effects of the daemon's start are not part of the change.
        tried.retain(|effect| !idle.contains(effect));
        let has_steps = change.publish.len() + change.unpublish.len() > 0;
        assert_eq!(tried.len() > 1, has_steps, "{change:?}: {tried:?}");
        for effect in tried {
            for (when, times) in [
                (When::Before, 1),
                (When::After, 1),
                (When::Before, 2),
                (When::After, 2),
                (When::After, u32::MAX),
            ] {
                let case = format!("{change:?}: `{effect}` fails {when:?} {times}x");
                let machine = start.copy();
                machine.daemon(DaemonFault::None, &[fault(&effect, when, times)], work);
                let op = machine.disk().ops.last().cloned().unwrap();
                let error = op.error.unwrap_or_else(|| panic!("{case}: no error"));
                let shown = [vec![error.message], error.causes].concat().join("\n");
                assert!(shown.contains(&format!("`{effect}`")), "{case}: {shown}");
                if times == 1 {
                    assert!(shown.contains("values before the change are in effect"), "{case}");
                    assert_eq!(agrees(&machine, &case), old, "{case}");
                }
                machine.daemon(DaemonFault::None, &[], async |_, _| ());
                old_or_new(&machine, &old, &new, &case);
            }
        }
    }
}

#[test]
fn every_commit_fails() {
    for (start, change) in scenarios() {
        let (old, new) = (start.vm().unwrap().spec, changed(&start, &change));
        let work = async |engine: &Engine, _: &Sim| set(engine, &change).await;
        let commits = start.copy().daemon(DaemonFault::None, &[], work).commits;
        for commit in 0..commits {
            for daemon_fault in
                [DaemonFault::FailCommit(commit), DaemonFault::FailCommitsFrom(commit)]
            {
                let machine = start.copy();
                assert_eq!(machine.daemon(daemon_fault, &[], work).ended, Ended::Idle);
                machine.daemon(DaemonFault::None, &[], async |_, _| ());
                old_or_new(&machine, &old, &new, &format!("{change:?}, {daemon_fault:?}"));
            }
        }
    }
}

/// A change that could be neither made nor taken back is made by the next one that succeeds.
#[test]
fn a_later_change_repairs_what_could_not_be_taken_back() {
    let machine = prepared(Before::Running);
    let [more, ..] = &live_changes()[..] else { panic!() };
    // The change fails, and so does the return to the old values.
    let faults = [fault("forwarder", When::Before, 2)];
    machine.daemon(DaemonFault::None, &faults, async |engine, _| {
        set(engine, more).await;
        assert!(engine.show("web").await.unwrap().next_start.is_none());
        set(engine, more).await;
    });
    assert_eq!(agrees(&machine, "repaired").publish, [port("8080:80"), port("9090:90")]);
}

#[test]
fn a_stopped_vm_gets_another_specification_only() {
    let machine = prepared(Before::Stopped);
    let before = machine.world();
    for change in live_changes() {
        machine.daemon(DaemonFault::None, &[], async |engine, _| set(engine, &change).await);
    }
    assert_eq!(machine.world(), before);
    let vm = machine.vm().unwrap();
    assert_eq!((vm.spec.vcpus, vm.spec.memory_mib, vm.spec.nat), (3, 1024, false));
    assert_eq!(vm.spec.publish, [port("9090:90")]);
    assert_eq!(vm.spec.labels, labels(&["team=db", "urgent"]));
}

/// Live values change, others wait for the next start, and `show` tells both.
#[test]
fn values_of_the_next_start_are_shown_until_it() {
    let machine = prepared(Before::Running);
    let Some(mixed) = live_changes().pop() else { panic!() };
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let accepted = engine.request("web", VmAction::Set(Box::new(mixed.clone()))).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        op.wait().await.unwrap();
        let notes = op.events_after(0).into_iter().filter_map(|event| match event.what {
            OpEventKind::Note { text } => Some(text),
            _ => None,
        });
        let [now, later] = notes.collect::<Vec<_>>().try_into().unwrap();
        assert!(now.contains("while it runs: published ports") && now.contains("9090"), "{now}");
        assert!(later.contains("at its next start: vcpus 3"), "{later}");
        assert!(!later.contains("ports"), "{later}");
        let show = engine.show("web").await.unwrap();
        assert_eq!(show.summary.publish.len(), 2);
        assert_eq!(show.summary.labels["team"], "db", "labels change at once");
        assert_ne!(show.summary.vcpus, Some(3));
        assert_eq!(show.next_start.unwrap().vcpus, 3);
        act(engine, VmAction::Restart { grace_ms: 5000 }).await;
        let show = engine.show("web").await.unwrap();
        assert_eq!((show.summary.vcpus, show.next_start), (Some(3), None));
    });
}

#[test]
fn refused_changes_change_nothing() {
    let machine = prepared(Before::Running);
    let marked = SetVm { labels: labels(&["one=1"]), ..SetVm::default() };
    machine.daemon(DaemonFault::None, &[], async |engine, _| set(engine, &marked).await);
    let numbered = |n: usize| (format!("k{n}").parse().unwrap(), String::new());
    let too_many = Labels::of((0..labels::MAX_LABELS).map(numbered)).unwrap();
    let before = machine.vm();
    let disk = Some(before.as_ref().unwrap().spec.root_bytes / 2);
    let collides = vec![port("0.0.0.0:8080:1")];
    for (change, code) in [
        (SetVm { root_bytes: disk, ..SetVm::default() }, ErrorCode::WrongState),
        (SetVm { work_bytes: disk, vcpus: Some(2), ..SetVm::default() }, ErrorCode::WrongState),
        (SetVm { publish: collides, ..SetVm::default() }, ErrorCode::BadRequest),
        (SetVm { labels: too_many, ..SetVm::default() }, ErrorCode::BadRequest),
    ] {
        machine.daemon(DaemonFault::None, &[], async |engine, _| {
            let accepted =
                engine.request("web", VmAction::Set(Box::new(change.clone()))).await.unwrap();
            let op = engine.follow(&accepted.operation.unwrap()).unwrap();
            assert_eq!(op.wait().await.unwrap_err().code, code, "{change:?}");
        });
        assert_eq!(machine.vm(), before, "{change:?}");
    }
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let nothing = VmAction::Set(Box::default());
        let error = engine.request("web", nothing).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest);
    });
}
