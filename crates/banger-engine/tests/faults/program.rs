//! Programs of machines without an init: their end is the machine's, whatever fails, and wherever
//! the daemon is killed.

use banger_api::ByteString;
use banger_api::program::ProgramRequest;
use banger_api::vm::{CreateVm, Lifetime, StoppedBecause, VmAction, VmState};
use banger_engine::Engine;
use banger_engine::record::{VmRecord, Wanted};
use banger_engine::sim::Sim;

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{Before, act, kinds, prepared, request};

/// A container image of the simulated registry.
const IMAGE: &str = "127.0.0.1:5000/app:1";

fn container(lifetime: Lifetime) -> CreateVm {
    let program = ProgramRequest {
        command: vec!["x".into()],
        env: vec!["B=2".into()],
        attach: true,
        ..ProgramRequest::default()
    };
    CreateVm { image: Some(IMAGE.into()), program: Some(program), lifetime, ..request() }
}

/// A running machine.
fn running(lifetime: Lifetime) -> Machine {
    let machine = Machine::default();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let accepted = engine.create(container(lifetime)).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
        if lifetime == Lifetime::Session {
            engine.hold("web").unwrap();
        }
    });
    machine
}

async fn end(engine: &Engine, sim: &Sim) {
    let Ok(plan) = engine.running_plan("web") else { return };
    let end = || sim.end_program(&plan, 7);
    // If this change kills the daemon, the unwinding ends here.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(end));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn attaches(vm: &VmRecord) -> bool {
    vm.run.as_ref().unwrap().attach
}

#[test]
fn the_program_is_decided_once_and_waits_for_a_client_once() {
    let machine = running(Lifetime::Keep);
    let vm = machine.vm().unwrap();
    let program = vm.plan.program.clone().unwrap();
    assert_eq!(program.argv, ["echo", "app", "x"].map(ByteString::from));
    assert_eq!(program.env, ["APP=1", "B=2"].map(ByteString::from));
    assert_eq!((program.cwd, program.stop_signal), (Some("/srv".into()), 3));
    assert!(attaches(&vm));
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        act(engine, VmAction::Restart { grace_ms: 1000 }).await;
    });
    assert!(!attaches(&machine.vm().unwrap()), "only the first run has a client");
    // An image with an init has no program.
    assert_eq!(prepared(Before::Running).vm().unwrap().plan.program, None);
}

#[test]
fn the_exit_code_is_on_record() {
    let machine = running(Lifetime::Keep);
    machine.daemon(DaemonFault::None, &[], end);
    let vm = machine.vm().unwrap();
    assert_eq!((vm.state, vm.exit_code, vm.wanted), (VmState::Stopped, Some(7), Wanted::Stopped));
    assert_eq!(vm.because, Some(StoppedBecause::ProgramEnded { code: 7 }));
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        act(engine, VmAction::Start {}).await;
    });
    let vm = machine.vm().unwrap();
    assert_eq!((vm.state, vm.exit_code), (VmState::Running, None));
    // A guest with an init can print the same line.
    let other = prepared(Before::Running);
    other.daemon(DaemonFault::None, &[], end);
    let vm = other.vm().unwrap();
    assert_eq!((vm.exit_code, vm.because), (None, Some(StoppedBecause::GuestPoweredOff)));
}

#[test]
fn a_temporary_machine_is_deleted_with_its_program() {
    for lifetime in [Lifetime::Session, Lifetime::UntilStopped] {
        let machine = running(lifetime);
        machine.daemon(DaemonFault::None, &[], end);
        assert_eq!(machine.vm(), None, "{lifetime:?}");
        assert_eq!(kinds(&machine), [""; 0], "{lifetime:?}");
    }
}

#[test]
fn a_daemon_killed_at_the_end_of_a_program_leaves_nothing() {
    for lifetime in [Lifetime::Keep, Lifetime::Session, Lifetime::UntilStopped] {
        let start = running(lifetime);
        let whole = start.copy().daemon(DaemonFault::None, &[], end).events;
        assert!(whole > 5, "{lifetime:?} has only {whole} events");
        for event in 0..whole {
            let case = format!("{lifetime:?}, killed at event {event} of {whole}");
            let machine = start.copy();
            let report = machine.daemon(DaemonFault::KillAt(event), &[], end);
            assert_eq!(report.ended, Ended::Killed, "{case}");
            machine.daemon(DaemonFault::KillAt(event % 7), &[], async |_, _| ());
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            if let Some(vm) = machine.vm() {
                // Killed before the guest had ended, or stopped.
                let stopped = vm.state == VmState::Stopped;
                assert!(stopped || vm.state == VmState::Running, "{case}: {:?}", vm.state);
                assert!(!stopped || lifetime == Lifetime::Keep, "{case}: it is temporary");
                assert_eq!(vm.run.is_none(), stopped, "{case}");
            }
            machine.daemon(DaemonFault::None, &[], async |engine, _| {
                act(engine, VmAction::Delete { force: true }).await;
            });
            assert_eq!(kinds(&machine), [""; 0], "{case}");
        }
    }
}
