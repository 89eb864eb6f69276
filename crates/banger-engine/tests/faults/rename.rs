//! A rename: the VM has the old name or the new one, and no two VMs have the same name, whatever
//! fails and however many requests come at once.

use std::collections::BTreeSet;

use banger_api::ErrorCode;
use banger_api::operation::OpState;
use banger_api::vm::{CreateVm, VmAction, VmState};
use banger_engine::Engine;
use banger_engine::sim::Sim;

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{Before, act, kinds, prepared, request};

fn to(name: &str) -> VmAction {
    VmAction::Rename { name: name.parse().unwrap() }
}

async fn rename(engine: &Engine, _: &Sim) {
    act(engine, to("shop")).await;
}

/// The name of the only VM; everything else is as it was.
fn name(machine: &Machine, start: &Machine, case: &str) -> String {
    let (vm, mut before) = (machine.vm().unwrap(), start.vm().unwrap());
    let name = vm.plan.name.to_string();
    before.plan.name = vm.plan.name.clone();
    assert_eq!(
        (&vm.plan, &vm.spec, vm.state),
        (&before.plan, &before.spec, before.state),
        "{case}"
    );
    assert_eq!(machine.world().objects, start.world().objects, "{case}");
    let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
    assert_eq!(open, 0, "{case}");
    assert!(["web", "shop"].contains(&name.as_str()), "{case}: {name}");
    name
}

#[test]
fn killed_at_every_event_and_at_every_failed_commit() {
    for before in [Before::Stopped, Before::Running] {
        let start = prepared(before);
        let whole = start.copy().daemon(DaemonFault::None, &[], rename);
        let mut names = BTreeSet::new();
        for event in 0..whole.events {
            let case = format!("{before:?}, killed at event {event} of {}", whole.events);
            let machine = start.copy();
            let report = machine.daemon(DaemonFault::KillAt(event), &[], rename);
            assert_eq!(report.ended, Ended::Killed, "{case}");
            machine.daemon(DaemonFault::None, &[], async |_, _| ());
            let name = name(&machine, &start, &case);
            machine.daemon(DaemonFault::None, &[], async |engine, _| {
                assert_eq!(engine.show(&name).await.unwrap().summary.name.as_str(), name, "{case}");
            });
            names.insert(name);
        }
        assert_eq!(names.len(), 2, "{names:?}");
        for commit in 0..whole.commits {
            for fault in [DaemonFault::FailCommit(commit), DaemonFault::FailCommitsFrom(commit)] {
                let machine = start.copy();
                machine.daemon(fault, &[], rename);
                machine.daemon(DaemonFault::None, &[], async |_, _| ());
                name(&machine, &start, &format!("{before:?}, {fault:?}"));
            }
        }
    }
}

async fn create(engine: &Engine, name: &str) -> Result<(), ErrorCode> {
    let request = CreateVm { name: Some(name.into()), publish: Vec::new(), ..request() };
    let accepted = engine.create(request).await.map_err(|error| error.code)?;
    let op = engine.follow(&accepted.operation.unwrap()).unwrap();
    op.wait().await.map(drop).map_err(|error| error.code)
}

async fn renamed(engine: &Engine, vm: &str, name: &str) -> Result<(), ErrorCode> {
    let accepted = engine.request(vm, to(name)).await.map_err(|error| error.code)?;
    let Some(id) = accepted.operation else { return Ok(()) };
    engine.follow(&id).unwrap().wait().await.map(drop).map_err(|error| error.code)
}

#[test]
fn a_name_has_one_owner() {
    let machine = prepared(Before::Running);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        create(engine, "db").await.unwrap();
        let taken = Err(ErrorCode::NameTaken);
        assert_eq!(renamed(engine, "web", "db").await, taken);
        assert_eq!(renamed(engine, "web", "web").await, Ok(()), "it has this name");
        // Two renames and a create at once.
        let all = tokio::join!(
            renamed(engine, "web", "shop"),
            renamed(engine, "db", "shop"),
            create(engine, "shop"),
        );
        let results = [all.0, all.1, all.2];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| **result == taken).count(), 2, "{results:?}");
        // An exchange of names is refused, because both are in use.
        let names = || async {
            let list = engine.list().await;
            list.iter().map(|vm| vm.name.to_string()).collect::<Vec<_>>()
        };
        let (one, two) = (names().await[0].clone(), names().await[1].clone());
        let all = tokio::join!(renamed(engine, &one, &two), renamed(engine, &two, &one));
        assert_eq!(all, (taken, taken));
        // Free names can be used at once, by this VM and by others.
        assert_eq!(renamed(engine, &one, "first").await, Ok(()));
        assert_eq!(engine.show(&one).await.unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(create(engine, &one).await, Ok(()));
        assert_eq!(renamed(engine, "first", &one).await, taken);
        let unique: BTreeSet<String> = names().await.into_iter().collect();
        assert_eq!(unique.len(), names().await.len());
    });
}

#[test]
fn the_address_follows_at_once_and_requests_after_a_rename_find_the_vm() {
    let machine = prepared(Before::Running);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let address = engine.address_of("web");
        assert!(address.is_some());
        act(engine, to("shop")).await;
        assert_eq!((engine.address_of("web"), engine.address_of("shop")), (None, address));
        let accepted = engine.request("shop", VmAction::STOP).await.unwrap();
        assert_eq!(accepted.vm.unwrap().name.as_str(), "shop");
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        op.wait().await.unwrap();
        assert_eq!(op.subject.vm().unwrap().name.as_str(), "shop");
        assert_eq!(engine.show("shop").await.unwrap().summary.state, VmState::Stopped);
        let delete = VmAction::Delete { force: true };
        let accepted = engine.request("shop", delete).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
        let error = engine.request("shop", to("web")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
    });
    assert_eq!(kinds(&machine), [""; 0]);
}
