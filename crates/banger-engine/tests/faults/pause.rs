//! Pause and resume, in addition to the fault loops: what a paused VM refuses, and how it ends.

use banger_api::ErrorCode;
use banger_api::boot::{Wait, WaitFor};
use banger_api::operation::OpEventKind;
use banger_api::vm::{AgentHealth, StopKind, StoppedBecause, VmAction, VmState};
use banger_engine::Engine;
use banger_engine::drivers::ClockHistory;
use banger_engine::sim::{GuestBehavior, Sim};

use crate::machine::{DaemonFault, Machine};
use crate::{Before, Expected, act, fault, prepared};
use banger_engine::sim::world::When;

fn on_paused(work: impl AsyncFnOnce(&Engine, &Sim)) -> Machine {
    let machine = prepared(Before::Paused);
    machine.daemon(DaemonFault::None, &[], work);
    machine
}

async fn hint_of(engine: &Engine, action: VmAction) -> (ErrorCode, String) {
    let error = engine.request("web", action).await.unwrap_err();
    (error.code, error.hint().unwrap())
}

#[test]
fn repeated_requests_change_nothing() {
    let machine = on_paused(async |engine, _| {
        let again = engine.request("web", VmAction::Pause {}).await.unwrap();
        assert_eq!(again.operation, None);
        act(engine, VmAction::Resume {}).await;
        let again = engine.request("web", VmAction::Resume {}).await.unwrap();
        assert_eq!(again.operation, None);
    });
    assert_eq!(machine.vm().unwrap().state, VmState::Running);
}

#[test]
fn requests_to_the_agent_of_a_paused_vm_fail_at_once() {
    on_paused(async |engine, _| {
        let wait = Wait { stage: WaitFor::Booted, timeout_ms: 60_000 };
        for error in [
            engine.running_plan("web").unwrap_err(),
            engine.wait_boot("web", wait).await.unwrap_err(),
        ] {
            assert_eq!(error.code, ErrorCode::WrongState);
            assert_eq!(error.message, "`web` is paused");
            assert_eq!(error.hint().unwrap(), "`banger vm resume web` resumes it");
        }
        let health = engine.health("web").await.unwrap();
        assert_eq!((health.state, health.agent), (VmState::Paused, AgentHealth::NotRunning));
        let (code, hint) = hint_of(engine, VmAction::Start {}).await;
        assert_eq!(
            (code, hint.as_str()),
            (ErrorCode::WrongState, "`banger vm resume web` resumes it")
        );
    });
}

#[test]
fn a_stopped_vm_is_neither_paused_nor_resumed() {
    let machine = prepared(Before::Stopped);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        for action in [VmAction::Pause {}, VmAction::Resume {}] {
            let (code, hint) = hint_of(engine, action).await;
            assert_eq!(code, ErrorCode::WrongState);
            assert_eq!(hint, "`banger vm start web` starts it");
        }
    });
}

#[test]
fn a_stop_resumes_the_guest_for_its_shutdown() {
    let machine = on_paused(async |engine, _| act(engine, VmAction::STOP).await);
    let because = machine.vm().unwrap().because;
    assert_eq!(because, Some(StoppedBecause::Requested { how: StopKind::Graceful }));
}

#[test]
fn a_stop_of_a_guest_that_cannot_be_resumed_kills_it() {
    let machine = prepared(Before::Paused);
    let faults = [fault("undo paused", When::Before, u32::MAX)];
    machine.daemon(DaemonFault::None, &faults, async |engine, _| act(engine, VmAction::STOP).await);
    let because = machine.vm().unwrap().because;
    assert_eq!(because, Some(StoppedBecause::Requested { how: StopKind::KilledAfterGrace }));
    Expected::new().recovers(&machine, "not resumed");
}

#[test]
fn a_resume_compares_the_clock_before_it_ends() {
    on_paused(async |engine, sim| {
        sim.take_compared();
        act(engine, VmAction::Resume {}).await;
        assert_eq!(sim.take_compared(), [("web".to_owned(), ClockHistory::Interrupted)]);
    });
}

#[test]
fn an_agent_that_does_not_answer_is_a_warning_of_the_resume() {
    on_paused(async |engine, sim| {
        sim.set_behavior("web", GuestBehavior::Unresponsive);
        let accepted = engine.request("web", VmAction::Resume {}).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        op.wait().await.unwrap();
        let warned = op.events_after(0).into_iter().any(|event| match event.what {
            OpEventKind::Warning { text } => text.contains("clock of `web` is not set"),
            _ => false,
        });
        assert!(warned);
    });
}

#[test]
fn a_kill_does_not_wait_for_the_clock_of_a_resume() {
    let machine = on_paused(async |engine, sim| {
        sim.set_behavior("web", GuestBehavior::Hanging);
        let resume = engine.request("web", VmAction::Resume {}).await.unwrap();
        let resume = engine.follow(&resume.operation.unwrap()).unwrap();
        while sim.take_compared().is_empty() {
            tokio::task::yield_now().await;
        }
        act(engine, VmAction::Kill {}).await;
        resume.wait().await.unwrap();
    });
    assert_eq!(machine.vm().unwrap().state, VmState::Stopped);
}

#[test]
fn the_death_of_the_vmm_of_a_paused_vm_is_reported() {
    let plan = prepared(Before::Paused).vm().unwrap().plan;
    let machine = on_paused(async |engine, sim| {
        sim.end_vmm(&plan, None, "killed by signal 9");
        while engine.show("web").await.unwrap().summary.state != VmState::Stopped {
            tokio::task::yield_now().await;
        }
    });
    let because = machine.vm().unwrap().because;
    assert!(matches!(because, Some(StoppedBecause::VmmDied { .. })), "{because:?}");
    Expected::new().check(&machine, "after the death of the VMM");
}

/// A guest that is paused while a client waits for its boot is not reported as ended.
#[test]
fn a_wait_for_the_boot_survives_a_pause() {
    let machine = prepared(Before::Stopped);
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        sim.set_behavior("web", GuestBehavior::NeverBooted);
        act(engine, VmAction::Start {}).await;
        let wait = Wait { stage: WaitFor::Booted, timeout_ms: 60_000 };
        let paused = async {
            act(engine, VmAction::Pause {}).await;
            sim.set_behavior("web", GuestBehavior::Good);
            act(engine, VmAction::Resume {}).await;
        };
        let (booted, ()) = tokio::join!(engine.wait_boot("web", wait), paused);
        booted.unwrap();
    });
}
