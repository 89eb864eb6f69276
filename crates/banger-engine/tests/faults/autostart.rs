//! Automatic starts: a new daemon starts what the user wants to run, after the host was restarted
//! or all processes were killed, whatever fails and wherever it is killed itself.

use banger_api::labels::Labels;
use banger_api::operation::OpState;
use banger_api::set::SetVm;
use banger_api::vm::{CreateVm, Lifetime, StoppedBecause, VmAction, VmState};
use banger_engine::Engine;
use banger_engine::autostart::MAX_FAILURES;
use banger_engine::drivers::GuestEnd;
use banger_engine::record::Wanted;
use banger_engine::sim::world::When;
use banger_engine::sim::{GuestBehavior, Sim};

use crate::machine::{DaemonFault, Ended, Machine, Report};
use crate::{Before, Expected, Trigger, act, carry_out, fault, kinds, prepared, request};

/// The end of all processes.
#[derive(Debug, Clone, Copy)]
enum Disaster {
    HostRestart,
    KillOfAll,
}

const DISASTERS: [Disaster; 2] = [Disaster::HostRestart, Disaster::KillOfAll];

impl Disaster {
    fn strike(self, machine: &Machine, expected: &Expected) {
        match self {
            Self::HostRestart => machine.restart_host(&expected.stopped),
            Self::KillOfAll => machine.kill_processes(),
        }
    }
}

const ON: SetVm = SetVm {
    kernel: None,
    vcpus: None,
    memory_mib: None,
    root_bytes: None,
    work_bytes: None,
    nat: None,
    autostart: Some(true),
    publish: Vec::new(),
    unpublish: Vec::new(),
    sync: Vec::new(),
    unsync: Vec::new(),
    labels: Labels::new(),
    unlabel: Vec::new(),
};

/// A running VM that is started automatically.
fn running() -> Machine {
    let machine = prepared(Before::Running);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        act(engine, VmAction::Set(Box::new(ON))).await
    });
    let vm = machine.vm().unwrap();
    assert!(vm.spec.autostart && vm.run.unwrap().spec.autostart);
    machine
}

/// The same, after the end of all processes.
fn struck(disaster: Disaster, expected: &Expected) -> Machine {
    let machine = running();
    disaster.strike(&machine, expected);
    machine
}

async fn autostart(engine: &Engine, _: &Sim) {
    engine.autostart().await;
}

/// A daemon without faults, as `bangerd` runs it.
fn next_daemon(machine: &Machine) -> Report {
    machine.daemon(DaemonFault::None, &[], autostart)
}

fn state(machine: &Machine) -> VmState {
    machine.vm().unwrap().state
}

fn automatic_starts(machine: &Machine) -> usize {
    machine.disk().ops.iter().filter(|op| op.kind == "autostart").count()
}

#[test]
fn what_ran_is_started_again_as_an_operation_on_record() {
    let expected = Expected::new();
    for disaster in DISASTERS {
        let machine = struck(disaster, &expected);
        next_daemon(&machine);
        expected.check(&machine, &format!("{disaster:?}"));
        assert_eq!(state(&machine), VmState::Running, "{disaster:?}");
        let started = machine.disk().ops.last().cloned().unwrap();
        assert_eq!((started.kind.as_str(), started.state), ("autostart", OpState::Succeeded));
        // It is not started twice, and a daemon that finds it running adopts it.
        let before = machine.vm().unwrap();
        next_daemon(&machine);
        assert_eq!(machine.vm().unwrap().run, before.run, "{disaster:?}");
        assert_eq!(automatic_starts(&machine), 1);

        let without = prepared(Before::Running);
        disaster.strike(&without, &expected);
        next_daemon(&without);
        assert_eq!(state(&without), VmState::Stopped, "{disaster:?}: without the setting");
    }
}

#[test]
fn what_the_user_stopped_stays_stopped() {
    let expected = Expected::new();
    let none = || Trigger::Act(VmAction::Set(Box::new(ON)));
    for (first, second, started) in [
        (Trigger::Act(VmAction::STOP), none(), false),
        (Trigger::Act(VmAction::Kill {}), none(), false),
        (Trigger::GuestEnds(GuestEnd::Poweroff), none(), false),
        // The guest reboots or crashes, and the user wants it to run.
        (Trigger::GuestEnds(GuestEnd::Reboot), none(), true),
        (Trigger::GuestEnds(GuestEnd::Panic), none(), true),
        (Trigger::Act(VmAction::Restart { grace_ms: 5000 }), none(), true),
        (Trigger::Act(VmAction::STOP), Trigger::Act(VmAction::Start {}), true),
        // A stop of a VM that has crashed is a wish, too.
        (Trigger::GuestEnds(GuestEnd::Panic), Trigger::Act(VmAction::STOP), false),
        (Trigger::GuestEnds(GuestEnd::Panic), Trigger::Act(VmAction::Kill {}), false),
    ] {
        for disaster in DISASTERS {
            let machine = running();
            machine.daemon(DaemonFault::None, &[], async |engine, sim| {
                carry_out(&first, engine, sim).await;
                engine.idle().await;
                carry_out(&second, engine, sim).await;
            });
            disaster.strike(&machine, &expected);
            next_daemon(&machine);
            let expected_state = if started { VmState::Running } else { VmState::Stopped };
            assert_eq!(state(&machine), expected_state, "{first:?}, {second:?}, {disaster:?}");
        }
    }
}

#[test]
fn a_vm_that_was_never_started_stays_stopped() {
    let machine = Machine::default();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let create = CreateVm { no_start: true, autostart: true, ..request() };
        let op = engine.create(create).await.unwrap().operation.unwrap();
        engine.follow(&op).unwrap().wait().await.unwrap();
    });
    next_daemon(&machine);
    assert_eq!(state(&machine), VmState::Stopped);
    assert_eq!(automatic_starts(&machine), 0);
}

#[test]
fn a_cancelled_start_stays_stopped() {
    let expected = Expected::new();
    let machine = struck(Disaster::HostRestart, &expected);
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        sim.set_behavior("web", GuestBehavior::Silent);
        let cancel = async {
            loop {
                tokio::task::yield_now().await;
                if engine.show("web").await.unwrap().summary.state == VmState::Starting {
                    break;
                }
            }
            act(engine, VmAction::Kill {}).await;
        };
        tokio::join!(engine.autostart(), cancel);
    });
    assert_eq!(state(&machine), VmState::Stopped);
    next_daemon(&machine);
    assert_eq!(state(&machine), VmState::Stopped);
}

#[test]
fn killed_at_every_event() {
    let expected = Expected::new();
    for disaster in DISASTERS {
        let start = struck(disaster, &expected);
        let whole = next_daemon(&start.copy()).events;
        assert!(whole > 20, "only {whole} events");
        for event in 0..whole {
            let case = format!("{disaster:?}, killed at event {event} of {whole}");
            let machine = start.copy();
            let killed = machine.daemon(DaemonFault::KillAt(event), &[], autostart);
            assert_eq!(killed.ended, Ended::Killed, "{case}");
            // The daemon that recovers is killed once, too.
            machine.daemon(DaemonFault::KillAt(event % 7), &[], autostart);
            next_daemon(&machine);
            expected.check(&machine, &case);
            let vm = machine.vm().unwrap();
            assert_eq!((vm.state, vm.autostart_failures), (VmState::Running, 0), "{case}");
            expected.recovers(&machine, &case);
        }
    }
}

#[test]
fn every_effect_fails_before_and_after() {
    let expected = Expected::new();
    for disaster in DISASTERS {
        let start = struck(disaster, &expected);
        for effect in next_daemon(&start.copy()).tried {
            for (when, times) in [(When::Before, 1), (When::After, 1), (When::After, u32::MAX)] {
                let case = format!("{disaster:?}, `{effect}` fails {when:?} {times}x");
                let machine = start.copy();
                machine.daemon(DaemonFault::None, &[fault(&effect, when, times)], autostart);
                match state(&machine) {
                    VmState::Broken => {
                        let repair = async |engine: &Engine, _: &Sim| {
                            let notices = engine.not_autostarted();
                            assert_eq!(notices.len(), 1, "{case}");
                            act(engine, VmAction::Repair {}).await
                        };
                        machine.daemon(DaemonFault::None, &[], repair);
                    }
                    VmState::Stopped => {
                        expected.check(&machine, &case);
                        let vm = machine.vm().unwrap();
                        assert_eq!(vm.autostart_failures, 1, "{case}");
                        let because = vm.because.unwrap();
                        let failed = matches!(because, StoppedBecause::StartFailed { .. });
                        assert!(failed, "{case}: {because:?}");
                    }
                    other => assert_eq!(other, VmState::Running, "{case}"),
                }
                next_daemon(&machine);
                expected.check(&machine, &case);
                assert_eq!(state(&machine), VmState::Running, "{case}");
            }
        }
    }
}

#[test]
fn every_commit_fails() {
    let expected = Expected::new();
    for disaster in DISASTERS {
        let start = struck(disaster, &expected);
        for commit in 0..next_daemon(&start.copy()).commits {
            for daemon_fault in
                [DaemonFault::FailCommit(commit), DaemonFault::FailCommitsFrom(commit)]
            {
                let case = format!("{disaster:?}, {daemon_fault:?}");
                let machine = start.copy();
                let report = machine.daemon(daemon_fault, &[], autostart);
                assert_eq!(report.ended, Ended::Idle, "{case}");
                // A daemon that cannot record the last end leaves it to the next one.
                next_daemon(&machine);
                next_daemon(&machine);
                expected.check(&machine, &case);
                assert_eq!(state(&machine), VmState::Running, "{case}");
            }
        }
    }
}

/// Wherever the daemon is killed during a stop: what is on record as wanted decides.
#[test]
fn a_stop_that_has_begun_is_a_wish() {
    let expected = Expected::new();
    let start = running();
    let stop = async |engine: &Engine, _: &Sim| act(engine, VmAction::STOP).await;
    let whole = start.copy().daemon(DaemonFault::None, &[], stop).events;
    let mut stopped = 0;
    for event in 0..whole {
        let machine = start.copy();
        machine.daemon(DaemonFault::KillAt(event), &[], stop);
        let before = machine.vm().unwrap();
        machine.restart_host(&expected.stopped);
        next_daemon(&machine);
        let wanted = match before.wanted {
            Wanted::Running => VmState::Running,
            Wanted::Stopped => VmState::Stopped,
        };
        assert_eq!(state(&machine), wanted, "killed at event {event} of {whole}");
        let begun = before.state != VmState::Running;
        assert!(!begun || wanted == VmState::Stopped, "killed at event {event} of {whole}");
        stopped += usize::from(begun);
    }
    assert!(stopped > 5, "{stopped} of {whole}");
}

#[test]
fn a_start_that_always_fails_is_not_repeated_endlessly() {
    let expected = Expected::new();
    let machine = struck(Disaster::HostRestart, &expected);
    let fails = || [fault("vmm", When::Before, u32::MAX)];
    for _ in 0..MAX_FAILURES + 2 {
        machine.daemon(DaemonFault::None, &fails(), autostart);
        assert_eq!(state(&machine), VmState::Stopped);
    }
    assert_eq!(automatic_starts(&machine), MAX_FAILURES as usize);
    machine.daemon(DaemonFault::None, &fails(), async |engine, _| {
        let notices = engine.show("web").await.unwrap().notices.join("\n");
        assert!(notices.contains("`vmm`") && notices.contains("until a user"), "{notices}");
        // A start by the user is a new wish, even if it fails.
        act(engine, VmAction::Start {}).await;
    });
    next_daemon(&machine);
    assert_eq!(state(&machine), VmState::Running);
    assert_eq!(kinds(&machine), expected.running);
}

#[test]
fn a_limited_number_of_vms_is_started_at_the_same_time() {
    const VMS: usize = 20;
    const CPUS: usize = 8;
    let machine = Machine::default();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        for n in 0..VMS {
            let name = Some(format!("vm{n}"));
            let create = CreateVm { name, autostart: true, ..CreateVm::default() };
            let op = engine.create(create).await.unwrap().operation.unwrap();
            engine.follow(&op).unwrap().wait().await.unwrap();
        }
    });
    machine.kill_processes();
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        // Their starts last until they are cancelled.
        (0..VMS).for_each(|n| sim.set_behavior(&format!("vm{n}"), GuestBehavior::Silent));
        let mut most = 0;
        let autostart = engine.autostart();
        tokio::pin!(autostart);
        loop {
            tokio::select! {
                () = &mut autostart => break,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {
                    most = most.max(engine.live_operations());
                    let starting = engine.states().into_iter();
                    for vm in starting.filter(|vm| vm.state == VmState::Starting).take(3) {
                        engine.request(vm.name.as_str(), VmAction::Kill {}).await.unwrap();
                    }
                }
            }
        }
        assert_eq!(most, CPUS);
    });
    assert_eq!(automatic_starts(&machine), VMS);
    assert!(machine.disk().vms.values().all(|vm| vm.wanted == Wanted::Stopped));
}

#[test]
fn a_vm_that_is_deleted_when_it_stops_cannot_have_the_setting() {
    let machine = Machine::default();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let lifetime = Lifetime::UntilStopped;
        let create = CreateVm { autostart: true, lifetime, ..request() };
        assert!(engine.create(create).await.is_err());
        let create = CreateVm { lifetime, ..request() };
        let op = engine.create(create).await.unwrap().operation.unwrap();
        engine.follow(&op).unwrap().wait().await.unwrap();
        let set =
            engine.request("web", VmAction::Set(Box::new(ON))).await.unwrap().operation.unwrap();
        let error = engine.follow(&set).unwrap().wait().await.unwrap_err();
        assert!(error.message.contains("deleted when it stops"), "{error}");
    });
}
