//! Removal of objects of VMs that are not on record, beside a running VM: the daemon is killed at
//! each event, the removal fails. Afterwards the same request removes the rest, and nothing else.

use banger_api::doctor::{Kept, RemovedLeftover};
use banger_api::operation::{OpState, Subject};
use banger_api::vm::CreateVm;
use banger_api::{ErrorCode, VmId};
use banger_engine::Engine;
use banger_engine::leftovers::REMOVE;
use banger_engine::sim::world::{Fault, When, World};

use crate::machine::{DaemonFault, Ended, Machine};

fn id(text: &str) -> VmId {
    text.parse().unwrap()
}

/// A leftover that is removed, one with disks, one that runs.
fn ids() -> [VmId; 3] {
    [id("00000000000a"), id("00000000000b"), id("00000000000c")]
}

/// A running VM and leftovers of three others.
fn prepared() -> Machine {
    let machine = Machine::default();
    let report = machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let request = CreateVm { name: Some("web".parse().unwrap()), ..CreateVm::default() };
        let accepted = engine.create(request).await.unwrap();
        let op = accepted.operation.and_then(|id| engine.follow(&id)).unwrap();
        op.wait().await.unwrap();
    });
    assert_eq!(report.ended, Ended::Idle);
    let [free, disks, running] = ids();
    for kind in ["network", "attach", "vmm_home"] {
        machine.add_object(kind, &free);
        machine.add_object(kind, &disks);
        machine.add_object(kind, &running);
    }
    machine.add_object("root", &disks);
    machine.add_object("vmm", &running);
    machine
}

async fn remove(engine: &Engine) -> Vec<RemovedLeftover> {
    engine.remove_leftovers(ids().map(|vm| vm.to_string()).to_vec()).await
}

fn without(mut world: World, vm: &VmId) -> World {
    let suffix = format!(":{vm}");
    world.objects.retain(|key, _| !key.ends_with(&suffix));
    world
}

#[test]
fn only_leftovers_without_disks_and_processes_are_removed() {
    let machine = prepared();
    let [free, disks, running] = ids();
    let before = machine.world();
    let web = machine.vm().unwrap().plan.id;
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let found = engine.leftovers().await.unwrap();
        let kept: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.kept())).collect();
        let expected = [
            (free.as_str(), None),
            (disks.as_str(), Some(Kept::Disks)),
            (running.as_str(), Some(Kept::Running)),
        ];
        assert_eq!(kept, expected);
        let mut wanted = ids().map(|vm| vm.to_string()).to_vec();
        wanted.extend([web.to_string(), "../etc".into(), free.to_string()]);
        let removed = engine.remove_leftovers(wanted).await;
        let codes: Vec<_> =
            removed.iter().map(|one| one.error.as_ref().map(|error| error.code)).collect();
        let refused = Some(ErrorCode::WrongState);
        assert_eq!(codes, [None, refused, refused, refused, Some(ErrorCode::BadRequest)]);
        assert_eq!(removed[0].removed.len(), 3);
        let again = remove(engine).await;
        assert_eq!((again[0].removed.len(), &again[0].error), (0, &None));
    });
    assert_eq!(machine.world().objects, without(before, &free).objects);
    let disk = machine.disk();
    let ops: Vec<_> = disk.ops.iter().filter(|op| op.kind == REMOVE).collect();
    assert_eq!(ops.len(), 1, "a refused removal is no operation");
    assert_eq!((&ops[0].subject, ops[0].state), (&Subject::Host, OpState::Succeeded));
}

#[test]
fn killed_at_every_event_or_failed_it_can_be_repeated() {
    let start = prepared();
    let expected = without(start.world(), &ids()[0]).objects;
    let work = async |engine: &Engine, _: &_| drop(remove(engine).await);
    let whole = start.copy().daemon(DaemonFault::None, &[], work).events;
    let kills = (0..whole).map(|event| (DaemonFault::KillAt(event), Vec::new()));
    let fault = |when| Fault { effect: "remove objects".into(), when, times: 1 };
    let failures = [When::Before, When::After].map(|when| (DaemonFault::None, vec![fault(when)]));
    for (daemon_fault, faults) in kills.chain(failures) {
        let case = format!("{daemon_fault:?} of {whole}, {faults:?}");
        let machine = start.copy();
        machine.daemon(daemon_fault, &faults, work);
        machine.daemon(DaemonFault::None, &[], work);
        assert_eq!(machine.world().objects, expected, "{case}");
        let disk = machine.disk();
        assert!(disk.ops.iter().all(|op| op.state != OpState::Running), "{case}");
    }
}
