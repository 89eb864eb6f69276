//! Records that this daemon did not write itself: of another build, from a backup, or unreadable.

use banger_api::ErrorCode;
use banger_api::vm::{VmAction, VmState};
use banger_engine::oplog::StepId;
use banger_engine::plan::DriverPlan;
use banger_engine::store::Unreadable;

use crate::machine::{DaemonFault, Machine};
use crate::{Before, Expected, act, kinds, prepared, request};

/// A run of another build has a step that this build does not have: all other steps are undone, and
/// the VM is broken until that build undoes the rest.
#[test]
fn a_step_of_another_build_is_not_forgotten() {
    let machine = prepared(Before::Running);
    let foreign: StepId = serde_json::from_str("\"teleport\"").unwrap();
    for vm in machine.disk().vms.values_mut() {
        vm.run.as_mut().unwrap().steps.insert(2, foreign.clone());
    }
    machine.daemon(DaemonFault::None, &[], async |engine, _| act(engine, VmAction::Kill {}).await);
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

/// A change of the specification during a run takes effect at the next run.
#[test]
fn a_run_keeps_its_specification() {
    let machine = prepared(Before::Running);
    let initial_spec = machine.vm().unwrap().spec;
    machine.disk().vms.values_mut().for_each(|vm| vm.spec.vcpus = 7);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        assert_eq!(engine.show("web").await.unwrap().summary.vcpus, Some(initial_spec.vcpus));
    });
    let adopted = machine.vm().unwrap();
    assert_eq!(adopted.run.as_ref().unwrap().spec, initial_spec);
    let restart = VmAction::Restart { grace_ms: 5000 };
    machine.daemon(DaemonFault::None, &[], async |engine, _| act(engine, restart.clone()).await);
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
        machine.daemon(DaemonFault::None, &[], async |engine, _| {
            let strays = engine.strays().await;
            assert_eq!(strays.len(), 1, "{case}");
            act(engine, action.clone()).await;
            assert!(engine.strays().await.is_empty(), "{case}");
        });
        assert_ne!(machine.world().get("shim", &id), before.get("shim", &id), "{case}");
        assert_eq!(machine.vm().is_some_and(|vm| vm.state == VmState::Running), runs, "{case}");
        expected.check(&machine, &case);
    }
}

/// A VM with a driver that this build does not have: only a forced delete changes it, and undoes
/// the steps that this build can undo.
#[test]
fn a_vm_of_an_unknown_driver_is_deleted_by_force_alone() {
    type Change = fn(&mut DriverPlan);
    let changes: [(&str, Change); 3] = [
        ("VMM", |drivers| drivers.vmm.name = "xen".into()),
        ("storage", |drivers| drivers.storage.name = "zfs".into()),
        ("network", |drivers| drivers.network.name = "infiniband".into()),
    ];
    for (what, change) in changes {
        let machine = prepared(Before::Stopped);
        machine.disk().vms.values_mut().for_each(|vm| change(&mut vm.plan.drivers));
        let before = machine.vm();
        for action in [VmAction::Start {}, VmAction::Delete { force: false }] {
            machine.daemon(DaemonFault::None, &[], async |engine, _| {
                let accepted = engine.request("web", action.clone()).await.unwrap();
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
        machine.daemon(DaemonFault::None, &[], async |engine, _| act(engine, force).await);
        assert_eq!(machine.vm(), None, "{what}");
        let left = kinds(&machine);
        let ours = Expected::new().stopped;
        assert!(left.len() < ours.len() && left.iter().all(|kind| ours.contains(kind)), "{left:?}");
        assert_eq!(left.is_empty(), what == "network", "{what}: {left:?}");
    }
}

/// An unreadable row does not block its name permanently, and is kept.
#[test]
fn an_unreadable_row_is_listed_and_set_aside() {
    let machine = Machine::default();
    let (id, why) = ("0123456789ab".to_owned(), "not JSON".to_owned());
    machine.disk().unreadable.push(Unreadable { id, name: "web".into(), why });
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let list = engine.list().await;
        assert_eq!((list[0].name.as_str(), list[0].state), ("web", VmState::Broken));
        assert_eq!((list[0].vcpus, list[0].memory_mib, list[0].disk), (None, None, None));
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
