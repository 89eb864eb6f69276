//! Fault loops over `vm set --kernel image` and the deletion of an image with its kernel: the VM
//! has the old or the new kernel, which exists, and no unfinished file is left.

use banger_api::ErrorCode;
use banger_api::images::{OWN_KERNEL, TakenName, own_kernel_name};
use banger_api::operation::OpState;
use banger_api::set::SetVm;
use banger_api::vm::{CreateVm, VmAction};
use banger_engine::Engine;
use banger_engine::drivers::KernelFiles;
use banger_engine::sim::Sim;
use banger_engine::sim::world::When;

use crate::machine::{DaemonFault, Ended, Machine};
use crate::{Before, act, fault, prepared, request};

fn own() -> SetVm {
    SetVm { kernel: Some(OWN_KERNEL.into()), ..SetVm::default() }
}

async fn set(engine: &Engine, _: &Sim) {
    act(engine, VmAction::Set(Box::new(own()))).await;
}

/// The kernel of the VM; it is there, and so is the image.
fn kernel(machine: &Machine, case: &str) -> String {
    let (world, vm) = (machine.world(), machine.vm().unwrap());
    assert!(world.unfinished.is_empty(), "{case}: {:?}", world.unfinished);
    let open = machine.disk().ops.iter().filter(|op| op.state == OpState::Running).count();
    assert_eq!(open, 0, "{case}");
    let boot = vm.plan.boot;
    for id in [boot.kernel.as_str(), boot.image.as_str()] {
        assert!(world.fetched.values().any(|known| known == id), "{case}: {id} is not there");
    }
    boot.kernel.to_string()
}

#[test]
fn killed_at_every_event() {
    let start = prepared(Before::Stopped);
    let old = kernel(&start, "before");
    let done = start.copy();
    let whole = done.daemon(DaemonFault::None, &[], set).events;
    let new = kernel(&done, "no fault");
    assert_ne!(old, new);
    assert!(whole > 3, "only {whole} events");
    let mut kernels = Vec::new();
    for event in 0..whole {
        let case = format!("killed at event {event} of {whole}");
        let machine = start.copy();
        assert_eq!(machine.daemon(DaemonFault::KillAt(event), &[], set).ended, Ended::Killed);
        machine.daemon(DaemonFault::None, &[], async |_, _| ());
        kernels.push(kernel(&machine, &case));
    }
    assert!(kernels.iter().all(|kernel| *kernel == old || *kernel == new), "{kernels:?}");
    assert_eq!(kernels[0], old);
}

#[test]
fn a_failure_keeps_the_kernel() {
    let start = prepared(Before::Stopped);
    let old = kernel(&start, "before");
    for when in [When::Before, When::After] {
        let machine = start.copy();
        machine.daemon(DaemonFault::None, &[fault("fetch", when, 1)], set);
        assert_eq!(machine.disk().ops.last().unwrap().state, OpState::Failed, "{when:?}");
        assert_eq!(kernel(&machine, "failed"), old, "{when:?}");
    }
    let running = prepared(Before::Running);
    let before = running.vm();
    running.daemon(DaemonFault::None, &[], async |engine, _| {
        let accepted = engine.request("web", VmAction::Set(Box::new(own()))).await.unwrap();
        let op = engine.follow(&accepted.operation.unwrap()).unwrap();
        assert_eq!(op.wait().await.unwrap_err().code, ErrorCode::WrongState);
    });
    assert_eq!(running.vm(), before);
}

#[test]
fn an_image_is_deleted_with_its_kernel() {
    let machine = Machine::default();
    let own_name = |machine: &Machine| {
        let image =
            machine.world().fetched.get(&format!("image:{}", crate::IMAGE)).cloned().unwrap();
        (format!("kernel:{}", own_kernel_name(&image)), image)
    };
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let kernel = Some(OWN_KERNEL.to_owned());
        let accepted = engine.create(CreateVm { kernel, no_start: true, ..request() }).await;
        let op = engine.follow(&accepted.unwrap().operation.unwrap()).unwrap();
        op.wait().await.unwrap();
    });
    let (key, image) = own_name(&machine);
    let own = machine.world().fetched.get(&key).cloned().unwrap();
    assert_eq!(kernel(&machine, "created"), own);
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let in_use = engine.delete_image(crate::IMAGE).await.unwrap_err();
        assert_eq!(in_use.code, ErrorCode::InUse);
        let in_use = engine.delete_kernel(&own_kernel_name(&image)).await.unwrap_err();
        assert_eq!(in_use.code, ErrorCode::InUse);
        act(engine, VmAction::Delete { force: true }).await;
        let only_image = engine.kernels().await.unwrap().len();
        engine.delete_image(crate::IMAGE).await.unwrap();
        assert_eq!(engine.kernels().await.unwrap().len(), only_image - 1);
    });
    assert!(!machine.world().fetched.contains_key(&key));
}

#[test]
fn names_of_kernels_of_images_are_not_given_to_others() {
    Machine::default().daemon(DaemonFault::None, &[], async |engine, _| {
        for name in [OWN_KERNEL.to_owned(), own_kernel_name("0123456789abcdef")] {
            let files = KernelFiles { path: "/vmlinuz".into(), modules: None };
            let refused = engine.import_kernel(files, &name, TakenName::Refuse).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::BadRequest, "{name}");
        }
        let files = KernelFiles { path: "/vmlinuz".into(), modules: None };
        engine.import_kernel(files, "image-mine", TakenName::Refuse).await.unwrap();
    });
}
