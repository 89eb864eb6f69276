//! Fault loops over every step of every list, on the simulated host: each effect fails before and
//! after it happened, each step is applied and undone twice, each commit fails, and the daemon is
//! killed at each event. Afterwards host and store agree: no object is left, or exactly those of a
//! stopped or running VM, or the VM is broken and its record contains the first error and those of
//! the undo.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod autostart;
mod build;
mod commit;
mod images;
mod leftovers;
mod machine;
mod own_kernel;
mod pause;
mod program;
mod records;
mod rename;
mod reset;
mod set;
mod steps;
mod waits;

use std::panic::{AssertUnwindSafe, catch_unwind};

use banger_api::operation::OpState;
use banger_api::vm::{CreateVm, VmAction, VmState};
use banger_engine::Engine;
use banger_engine::drivers::GuestEnd;
use banger_engine::record::Existence;
use banger_engine::sim::Sim;
use banger_engine::sim::world::{Fault, When};

use machine::{DaemonFault, Ended, Machine};

/// State of the VM before a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Stopped,
    Running,
    Paused,
}

/// Event that starts a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trigger {
    Create,
    Act(VmAction),
    /// The guest powers off, reboots or panics.
    GuestEnds(GuestEnd),
}

/// Every path through the lists.
const SCENARIOS: [(Before, Trigger); 16] = [
    (Before::Nothing, Trigger::Create),
    (Before::Stopped, Trigger::Act(VmAction::Start {})),
    (Before::Running, Trigger::Act(VmAction::STOP)),
    (Before::Running, Trigger::Act(VmAction::Kill {})),
    (Before::Running, Trigger::Act(VmAction::Restart { grace_ms: 5000 })),
    (Before::Stopped, Trigger::Act(VmAction::Delete { force: true })),
    (Before::Running, Trigger::Act(VmAction::Delete { force: true })),
    (Before::Running, Trigger::GuestEnds(GuestEnd::Poweroff)),
    (Before::Running, Trigger::GuestEnds(GuestEnd::Reboot)),
    (Before::Running, Trigger::GuestEnds(GuestEnd::Panic)),
    (Before::Running, Trigger::Act(VmAction::Pause {})),
    (Before::Paused, Trigger::Act(VmAction::Resume {})),
    (Before::Paused, Trigger::Act(VmAction::STOP)),
    (Before::Paused, Trigger::Act(VmAction::Kill {})),
    (Before::Paused, Trigger::Act(VmAction::Restart { grace_ms: 5000 })),
    (Before::Paused, Trigger::Act(VmAction::Delete { force: true })),
];

/// An image with opencode, so that the steps of that are in the lists.
const IMAGE: &str = "localhost/debian-dev:1";

fn request() -> CreateVm {
    let publish = vec!["8080:80".parse().unwrap()];
    let image = Some(IMAGE.into());
    CreateVm { name: Some("web".into()), image, publish, ..CreateVm::default() }
}

async fn act(engine: &Engine, action: VmAction) {
    // A refusal is allowed: the test checks the state afterwards.
    let Ok(accepted) = engine.request("web", action).await else { return };
    let Some(op) = accepted.operation.and_then(|id| engine.follow(&id)) else { return };
    // The test checks the result in the store.
    let _ = op.wait().await;
}

async fn carry_out(trigger: &Trigger, engine: &Engine, sim: &Sim) {
    match trigger {
        Trigger::Create => {
            // A store that fails refuses it.
            let Ok(accepted) = engine.create(request()).await else { return };
            let op = accepted.operation.and_then(|id| engine.follow(&id)).unwrap();
            let _ = op.wait().await;
        }
        Trigger::Act(action) => act(engine, action.clone()).await,
        Trigger::GuestEnds(guest) => {
            let Ok(plan) = engine.running_plan("web") else { return };
            // If this change kills the daemon, the unwinding ends here.
            let end = || sim.end_vmm(&plan, Some(*guest), "the simulated guest ended");
            let _ = catch_unwind(AssertUnwindSafe(end));
            // The task of the VM receives the exit later.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[test]
fn the_loops_run_the_steps_of_every_capability() {
    let kinds = kinds(&prepared(Before::Running));
    let steps = banger_engine::capabilities::ALL.iter().flat_map(|capability| capability.steps);
    for step in steps {
        assert!(kinds.iter().any(|kind| kind == step.id.as_str()), "{step:?}: {kinds:?}");
    }
}

fn prepared(before: Before) -> Machine {
    let machine = Machine::default();
    if before == Before::Nothing {
        return machine;
    }
    let report = machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let no_start = before == Before::Stopped;
        let accepted = engine.create(CreateVm { no_start, ..request() }).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
        if before == Before::Paused {
            act(engine, VmAction::Pause {}).await;
        }
    });
    assert_eq!(report.ended, Ended::Idle);
    machine
}

/// Kinds of objects of the only VM.
fn kinds(machine: &Machine) -> Vec<String> {
    let world = machine.world();
    let kinds = world.objects.keys().filter_map(|key| key.split(':').next());
    kinds.map(str::to_owned).collect()
}

/// Objects of a stopped VM and of a running one.
struct Expected {
    stopped: Vec<String>,
    running: Vec<String>,
}

impl Expected {
    fn new() -> Self {
        let (stopped, running) = (prepared(Before::Stopped), prepared(Before::Running));
        Self { stopped: kinds(&stopped), running: kinds(&running) }
    }

    /// Host and store agree.
    fn check(&self, machine: &Machine, case: &str) {
        let Some(vm) = machine.vm() else {
            assert_eq!(kinds(machine), [""; 0], "{case}: the VM is gone");
            return;
        };
        match vm.state {
            VmState::Stopped => {
                assert_eq!(vm.existence, Existence::Created, "{case}");
                assert_eq!(vm.run, None, "{case}");
                assert_eq!(kinds(machine), self.stopped, "{case}: the VM is stopped");
            }
            VmState::Running | VmState::Paused => {
                let run = vm.run.as_ref().unwrap();
                let shim = run.shim.map(|shim| shim.start_time.to_string());
                assert_eq!(machine.world().get("shim", &vm.plan.id), shim.as_deref(), "{case}");
                let mut kinds = kinds(machine);
                let running = kinds.len();
                kinds.retain(|kind| kind != "paused");
                let is_paused = kinds.len() < running;
                assert_eq!(is_paused, vm.state == VmState::Paused, "{case}: {:?}", vm.state);
                assert_eq!(kinds, self.running, "{case}: the VM runs");
            }
            state => panic!("{case}: {state:?} is not a final state"),
        }
        let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
        assert_eq!(open, 0, "{case}: operations that have not ended");
    }

    /// A later daemon without faults brings host and store together, and the VM can be deleted.
    fn recovers(&self, machine: &Machine, case: &str) {
        machine.daemon(DaemonFault::None, &[], async |_, _| ());
        if machine.vm().is_some_and(|vm| vm.state == VmState::Broken) {
            let repair = async |engine: &Engine, _: &Sim| act(engine, VmAction::Repair {}).await;
            machine.daemon(DaemonFault::None, &[], repair);
        }
        self.check(machine, case);
        let before = (machine.world(), machine.vm());
        machine.daemon(DaemonFault::None, &[], async |_, _| ());
        assert_eq!((machine.world(), machine.vm()), before, "{case}: one more daemon changed it");
        machine.daemon(DaemonFault::None, &[], async |engine, _| {
            act(engine, VmAction::Delete { force: true }).await
        });
        assert_eq!(machine.vm(), None, "{case}: not deleted");
        assert_eq!(kinds(machine), [""; 0], "{case}: left after a delete");
    }
}

fn fault(effect: &str, when: When, times: u32) -> Fault {
    Fault { effect: effect.into(), when, times }
}

#[test]
fn killed_at_every_event() {
    let expected = Expected::new();
    for (before, trigger) in SCENARIOS {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(&trigger, engine, sim).await;
        let whole = start.copy().daemon(DaemonFault::None, &[], work).events;
        assert!(whole > 5, "{trigger:?} has only {whole} events");
        for event in 0..whole {
            let case = format!("{trigger:?} of {before:?}, killed at event {event} of {whole}");
            let machine = start.copy();
            let report = machine.daemon(DaemonFault::KillAt(event), &[], work);
            assert_eq!(report.ended, Ended::Killed, "{case}");
            // The daemon that recovers is killed once, too.
            machine.daemon(DaemonFault::KillAt(event % 7), &[], async |_, _| ());
            expected.recovers(&machine, &case);
        }
    }
}

#[test]
fn every_effect_fails_before_and_after() {
    let expected = Expected::new();
    for (before, trigger) in SCENARIOS {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(&trigger, engine, sim).await;
        for effect in start.copy().daemon(DaemonFault::None, &[], work).tried {
            for (when, times) in [(When::Before, 1), (When::After, 1), (When::After, u32::MAX)] {
                let case = format!("{trigger:?} of {before:?}, `{effect}` fails {when:?} {times}x");
                let machine = start.copy();
                machine.daemon(DaemonFault::None, &[fault(&effect, when, times)], work);
                match machine.vm() {
                    Some(vm) if vm.state == VmState::Broken => {
                        let reported = vm.problems.join("\n");
                        assert!(effect.starts_with("undo "), "{case}: {reported}");
                        assert!(reported.contains(&format!("`{effect}`")), "{case}: {reported}");
                    }
                    _ => expected.check(&machine, &case),
                }
                expected.recovers(&machine, &case);
            }
        }
    }
}

/// The first error and those of the undo are both on record and in the error of the operation.
#[test]
fn a_failed_undo_after_a_failed_step_reports_both_errors() {
    let expected = Expected::new();
    for (before, trigger) in
        [(Before::Nothing, Trigger::Create), (Before::Stopped, Trigger::Act(VmAction::Start {}))]
    {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(&trigger, engine, sim).await;
        let tried = start.copy().daemon(DaemonFault::None, &[], work).tried;
        let mut broken = 0;
        for effect in &tried {
            let first = fault(effect, When::After, 1);
            let undos =
                start.copy().daemon(DaemonFault::None, std::slice::from_ref(&first), work).tried;
            for undo in undos.iter().filter(|effect| effect.starts_with("undo ")) {
                let case = format!("{trigger:?}: `{effect}` fails, then `{undo}`");
                let machine = start.copy();
                let faults = [first.clone(), fault(undo, When::Before, u32::MAX)];
                machine.daemon(DaemonFault::None, &faults, work);
                let vm = machine.vm().unwrap();
                assert_eq!(vm.state, VmState::Broken, "{case}");
                let reported = vm.problems.join("\n");
                let error = machine.disk().ops.last().unwrap().error.clone().unwrap();
                let shown = [vec![error.message], error.causes].concat().join("\n");
                for text in [&reported, &shown] {
                    assert!(text.contains(&format!("after `{effect}`")), "{case}: {text}");
                    assert!(text.contains(&format!("before `{undo}`")), "{case}: {text}");
                }
                broken += 1;
                expected.recovers(&machine, &case);
            }
        }
        assert!(broken > tried.len(), "only {broken} pairs");
    }
}

#[test]
fn every_commit_fails() {
    let expected = Expected::new();
    for (before, trigger) in SCENARIOS {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(&trigger, engine, sim).await;
        let commits = start.copy().daemon(DaemonFault::None, &[], work).commits;
        assert!(commits > 2, "{trigger:?} has only {commits} commits");
        for commit in 0..commits {
            for daemon_fault in
                [DaemonFault::FailCommit(commit), DaemonFault::FailCommitsFrom(commit)]
            {
                let machine = start.copy();
                assert_eq!(machine.daemon(daemon_fault, &[], work).ended, Ended::Idle);
                expected
                    .recovers(&machine, &format!("{trigger:?} of {before:?}, {daemon_fault:?}"));
            }
        }
    }
}
