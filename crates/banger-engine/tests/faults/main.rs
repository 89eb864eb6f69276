//! Fault loops over every step of every list, on the simulated host: each effect fails before and
//! after it happened, each step is applied and undone twice, each commit fails, and the daemon is
//! killed at each event. Afterwards host and store agree: nothing is left, or exactly what a
//! stopped or running VM has, or the VM is broken and says what failed first and what could not be
//! undone.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod images;
mod machine;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};

use banger_api::ErrorCode;
use banger_api::operation::OpState;
use banger_api::vm::{CreateVm, VmAction, VmState};
use banger_engine::Engine;
use banger_engine::drivers::GuestEnd;
use banger_engine::oplog::StepId;
use banger_engine::plan::DriverPlan;
use banger_engine::record::Existence;
use banger_engine::sim::Sim;
use banger_engine::sim::world::{Fault, When};
use banger_engine::store::Unreadable;

use machine::{Doom, Ended, Machine};

/// What there is when a scenario begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Stopped,
    Running,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Create,
    Act(VmAction),
    /// The guest ends by itself.
    GuestEnds(GuestEnd),
}

/// Every way through the lists.
const SCENARIOS: [(Before, Asked); 10] = [
    (Before::Nothing, Asked::Create),
    (Before::Stopped, Asked::Act(VmAction::Start {})),
    (Before::Running, Asked::Act(VmAction::STOP)),
    (Before::Running, Asked::Act(VmAction::Kill {})),
    (Before::Running, Asked::Act(VmAction::Restart { grace_ms: 5000 })),
    (Before::Stopped, Asked::Act(VmAction::Delete { force: true })),
    (Before::Running, Asked::Act(VmAction::Delete { force: true })),
    (Before::Running, Asked::GuestEnds(GuestEnd::Poweroff)),
    (Before::Running, Asked::GuestEnds(GuestEnd::Reboot)),
    (Before::Running, Asked::GuestEnds(GuestEnd::Panic)),
];

fn request() -> CreateVm {
    let publish = vec!["8080:80".parse().unwrap()];
    CreateVm { name: Some("web".into()), publish, ..CreateVm::default() }
}

async fn act(engine: &Engine, action: VmAction) {
    // Refused is an answer, too: the state afterwards is what is looked at.
    let Ok(accepted) = engine.request("web", action).await else { return };
    let Some(op) = accepted.operation.and_then(|id| engine.follow(&id)) else { return };
    // How it ends is looked at in the store.
    let _ = op.wait().await;
}

async fn carry_out(asked: Asked, engine: &Engine, sim: &Sim) {
    match asked {
        Asked::Create => {
            // A store that fails refuses it.
            let Ok(accepted) = engine.create(request()).await else { return };
            let op = accepted.operation.and_then(|id| engine.follow(&id)).unwrap();
            let _ = op.wait().await;
        }
        Asked::Act(action) => act(engine, action).await,
        Asked::GuestEnds(guest) => {
            let Ok(plan) = engine.running_plan("web") else { return };
            // Where this very change kills the daemon, the unwinding ends here.
            let end = || sim.end_vmm(&plan, Some(guest), "the simulated guest ended");
            let _ = catch_unwind(AssertUnwindSafe(end));
            // The owner of the VM hears of it in a task of its own.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn prepared(before: Before) -> Machine {
    let machine = Machine::default();
    if before == Before::Nothing {
        return machine;
    }
    let report = machine.daemon(Doom::None, &[], async |engine, _| {
        let no_start = before == Before::Stopped;
        let accepted = engine.create(CreateVm { no_start, ..request() }).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
    });
    assert_eq!(report.ended, Ended::Quiet);
    machine
}

/// Kinds of objects of the only VM.
fn kinds(machine: &Machine) -> Vec<String> {
    let world = machine.world();
    let kinds = world.objects.keys().filter_map(|key| key.split(':').next());
    kinds.map(str::to_owned).collect()
}

/// Objects of a whole VM that does not run, and of one that runs.
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
                assert_eq!(vm.existence, Existence::Whole, "{case}");
                assert_eq!(vm.run, None, "{case}");
                assert_eq!(kinds(machine), self.stopped, "{case}: the VM is stopped");
            }
            VmState::Running => {
                let run = vm.run.as_ref().unwrap();
                let shim = run.shim.map(|shim| shim.start_time.to_string());
                assert_eq!(machine.world().get("shim", &vm.plan.id), shim.as_deref(), "{case}");
                assert_eq!(kinds(machine), self.running, "{case}: the VM runs");
            }
            state => panic!("{case}: {state:?} is no state to be left in"),
        }
        let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
        assert_eq!(open, 0, "{case}: operations that have not ended");
    }

    /// A later daemon without faults brings host and store together, and the VM can be deleted.
    fn recovers(&self, machine: &Machine, case: &str) {
        machine.daemon(Doom::None, &[], async |_, _| ());
        if machine.vm().is_some_and(|vm| vm.state == VmState::Broken) {
            let repair = async |engine: &Engine, _: &Sim| act(engine, VmAction::Repair {}).await;
            machine.daemon(Doom::None, &[], repair);
        }
        self.check(machine, case);
        let before = (machine.world(), machine.vm());
        machine.daemon(Doom::None, &[], async |_, _| ());
        assert_eq!((machine.world(), machine.vm()), before, "{case}: one more daemon changed it");
        machine.daemon(Doom::None, &[], async |engine, _| {
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
    for (before, asked) in SCENARIOS {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(asked, engine, sim).await;
        let whole = start.copy().daemon(Doom::None, &[], work).events;
        assert!(whole > 5, "{asked:?} has only {whole} events");
        for event in 0..whole {
            let case = format!("{asked:?} of {before:?}, killed at event {event} of {whole}");
            let machine = start.copy();
            let report = machine.daemon(Doom::KillAt(event), &[], work);
            assert_eq!(report.ended, Ended::Killed, "{case}");
            // The daemon that cleans up is killed once, too.
            machine.daemon(Doom::KillAt(event % 7), &[], async |_, _| ());
            expected.recovers(&machine, &case);
        }
    }
}

#[test]
fn every_effect_fails_before_and_after() {
    let expected = Expected::new();
    for (before, asked) in SCENARIOS {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(asked, engine, sim).await;
        for effect in start.copy().daemon(Doom::None, &[], work).tried {
            for (when, times) in [(When::Before, 1), (When::After, 1), (When::After, u32::MAX)] {
                let case = format!("{asked:?} of {before:?}, `{effect}` fails {when:?} {times}x");
                let machine = start.copy();
                machine.daemon(Doom::None, &[fault(&effect, when, times)], work);
                match machine.vm() {
                    Some(vm) if vm.state == VmState::Broken => {
                        let told = vm.problems.join("\n");
                        assert!(effect.starts_with("undo "), "{case}: {told}");
                        assert!(told.contains(&format!("`{effect}`")), "{case}: {told}");
                    }
                    _ => expected.check(&machine, &case),
                }
                expected.recovers(&machine, &case);
            }
        }
    }
}

/// What fails first, and what then cannot be undone, are both on record and in the error.
#[test]
fn a_failed_undo_after_a_failed_step_reports_both_errors() {
    let expected = Expected::new();
    for (before, asked) in
        [(Before::Nothing, Asked::Create), (Before::Stopped, Asked::Act(VmAction::Start {}))]
    {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(asked, engine, sim).await;
        let tried = start.copy().daemon(Doom::None, &[], work).tried;
        let mut broken = 0;
        for effect in &tried {
            let first = fault(effect, When::After, 1);
            let undos = start.copy().daemon(Doom::None, std::slice::from_ref(&first), work).tried;
            for undo in undos.iter().filter(|effect| effect.starts_with("undo ")) {
                let case = format!("{asked:?}: `{effect}` fails, then `{undo}`");
                let machine = start.copy();
                let faults = [first.clone(), fault(undo, When::Before, u32::MAX)];
                machine.daemon(Doom::None, &faults, work);
                let vm = machine.vm().unwrap();
                assert_eq!(vm.state, VmState::Broken, "{case}");
                let told = vm.problems.join("\n");
                let error = machine.disk().ops.last().unwrap().error.clone().unwrap();
                let shown = [vec![error.message], error.causes].concat().join("\n");
                for text in [&told, &shown] {
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
    for (before, asked) in SCENARIOS {
        let start = prepared(before);
        let work = async |engine: &Engine, sim: &Sim| carry_out(asked, engine, sim).await;
        let commits = start.copy().daemon(Doom::None, &[], work).commits;
        assert!(commits > 2, "{asked:?} has only {commits} commits");
        for commit in 0..commits {
            for doom in [Doom::FailCommit(commit), Doom::FailCommitsFrom(commit)] {
                let machine = start.copy();
                assert_eq!(machine.daemon(doom, &[], work).ended, Ended::Quiet);
                expected.recovers(&machine, &format!("{asked:?} of {before:?}, {doom:?}"));
            }
        }
    }
}

/// A run that another build began has a step that this build does not have: everything else is
/// undone, and the VM is broken until that build undoes the rest.
#[test]
fn a_step_of_another_build_is_not_forgotten() {
    let machine = prepared(Before::Running);
    let foreign: StepId = serde_json::from_str("\"teleport\"").unwrap();
    for vm in machine.disk().vms.values_mut() {
        vm.run.as_mut().unwrap().steps.insert(2, foreign.clone());
    }
    machine.daemon(Doom::None, &[], async |engine, _| act(engine, VmAction::Kill {}).await);
    let vm = machine.vm().unwrap();
    assert_eq!(vm.state, VmState::Broken);
    let [problem] = vm.problems.as_slice() else { panic!("{:?}", vm.problems) };
    assert!(problem.starts_with("teleport: this build of banger does not have"), "{problem}");
    assert_eq!(kinds(&machine), Expected::new().stopped);
    for vm in machine.disk().vms.values_mut() {
        vm.run.as_mut().unwrap().steps.retain(|step| step != &foreign);
    }
    Expected::new().recovers(&machine, "after the other build");
}

/// What is asked for in the middle of a run counts from the next run on.
#[test]
fn a_run_keeps_the_specification_that_it_began_with() {
    let machine = prepared(Before::Running);
    let began_with = machine.vm().unwrap().spec;
    machine.disk().vms.values_mut().for_each(|vm| vm.spec.vcpus = 7);
    machine.daemon(Doom::None, &[], async |engine, _| {
        assert_eq!(engine.show("web").await.unwrap().summary.vcpus, began_with.vcpus);
    });
    let adopted = machine.vm().unwrap();
    assert_eq!(adopted.run.as_ref().unwrap().spec, began_with);
    let restart = VmAction::Restart { grace_ms: 5000 };
    machine.daemon(Doom::None, &[], async |engine, _| act(engine, restart).await);
    assert_eq!(machine.vm().unwrap().run.unwrap().spec.vcpus, 7);
}

/// A database from a backup says that the VM is stopped or broken while its VMM lives.
#[test]
fn a_vmm_without_a_run_on_record_is_ended_before_its_disks_are_used() {
    let expected = Expected::new();
    for (state, action, runs) in [
        (VmState::Stopped, VmAction::Start {}, true),
        (VmState::Stopped, VmAction::Restart { grace_ms: 1 }, true),
        (VmState::Stopped, VmAction::Delete { force: false }, false),
        (VmState::Broken, VmAction::Repair {}, false),
        (VmState::Broken, VmAction::Delete { force: true }, false),
    ] {
        let case = format!("{action:?} of a {state:?} VM whose VMM lives");
        let machine = prepared(Before::Running);
        let before = machine.world();
        for vm in machine.disk().vms.values_mut() {
            (vm.state, vm.run) = (state, None);
        }
        let id = machine.vm().unwrap().plan.id;
        machine.daemon(Doom::None, &[], async |engine, _| {
            let strays = engine.strays().await;
            assert_eq!(strays.len(), 1, "{case}");
            act(engine, action).await;
            assert!(engine.strays().await.is_empty(), "{case}");
        });
        assert_ne!(machine.world().get("shim", &id), before.get("shim", &id), "{case}");
        assert_eq!(machine.vm().is_some_and(|vm| vm.state == VmState::Running), runs, "{case}");
        expected.check(&machine, &case);
    }
}

/// A VM that another build made with a driver that this one lacks: nothing is changed unless by
/// force, and then what this build can undo is undone.
#[test]
fn a_vm_of_an_unknown_driver_is_deleted_by_force_alone() {
    type Change = fn(&mut DriverPlan);
    let changes: [(&str, Change); 3] = [
        ("VMM", |drivers| drivers.vmm.name = "xen".into()),
        ("storage", |drivers| drivers.storage.name = "zfs".into()),
        ("network", |drivers| drivers.network.name = "carrier-pigeon".into()),
    ];
    for (what, change) in changes {
        let machine = prepared(Before::Stopped);
        machine.disk().vms.values_mut().for_each(|vm| change(&mut vm.plan.drivers));
        let before = machine.vm();
        for action in [VmAction::Start {}, VmAction::Delete { force: false }] {
            machine.daemon(Doom::None, &[], async |engine, _| {
                let accepted = engine.request("web", action).await.unwrap();
                let op = engine.follow(&accepted.operation.unwrap()).unwrap();
                let error = op.wait().await.unwrap_err();
                assert_eq!(error.code, ErrorCode::OtherBuild, "{action:?}: {error:?}");
                assert!(error.message.contains(what), "{}", error.message);
                let hint = error.hint().unwrap();
                assert!(hint.contains("`banger vm delete -f web`"), "{hint}");
            });
            let (now, before) = (machine.vm().unwrap(), before.clone().unwrap());
            assert_eq!((now.state, now.existence), (before.state, before.existence), "{action:?}");
        }
        let force = VmAction::Delete { force: true };
        machine.daemon(Doom::None, &[], async |engine, _| act(engine, force).await);
        assert_eq!(machine.vm(), None, "{what}");
        let left = kinds(&machine);
        let ours = Expected::new().stopped;
        assert!(left.len() < ours.len() && left.iter().all(|kind| ours.contains(kind)), "{left:?}");
        assert_eq!(left.is_empty(), what == "network", "{what}: {left:?}");
    }
}

/// A row that cannot be understood does not take its name for good, and is not lost.
#[test]
fn a_vm_whose_row_cannot_be_understood_is_listed_and_set_aside() {
    let machine = Machine::default();
    let (id, why) = ("0123456789ab".to_owned(), "not JSON".to_owned());
    machine.disk().unreadable.push(Unreadable { id, name: "web".into(), why });
    machine.daemon(Doom::None, &[], async |engine, _| {
        let list = engine.list().await;
        assert_eq!((list[0].name.as_str(), list[0].state), ("web", VmState::Broken));
        assert!(list[0].problem.as_ref().unwrap().ends_with("not JSON"), "{list:?}");
        for reference in ["web", "0123"] {
            let error = engine.show(reference).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::Corrupt);
            assert!(error.hint().unwrap().contains("`banger vm delete -f web`"));
            let refused = engine.request(reference, VmAction::Start {}).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Corrupt);
            let delete = VmAction::Delete { force: false };
            assert_eq!(engine.request(reference, delete).await.unwrap_err().code, refused.code);
        }
        let taken = engine.create(request()).await.unwrap_err();
        assert_eq!(taken.code, ErrorCode::NameTaken);
        assert!(taken.hint().unwrap().contains("`banger vm delete -f web`"));
        act(engine, VmAction::Delete { force: true }).await;
        assert!(engine.list().await.is_empty());
        let accepted = engine.create(request()).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
    });
    assert!(machine.disk().unreadable.is_empty());
    assert_eq!(machine.vm().unwrap().state, VmState::Running);
}
