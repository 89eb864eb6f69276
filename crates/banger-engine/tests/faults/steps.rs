//! Each step by itself: applied twice, undone twice, undone where nothing was ever done.

use std::sync::Arc;

use banger_api::vm::CreateVm;
use banger_engine::interrupt::Interrupt;
use banger_engine::lists::{self, Fact, ListName, Step, StepContext};
use banger_engine::oplog::StepId;
use banger_engine::plan::VmPlan;
use banger_engine::record::VmRecord;
use banger_engine::sim::Sim;

use crate::machine::{DaemonFault, Machine};

/// A VM as it is stored while it runs.
fn record() -> VmRecord {
    let machine = Machine::default();
    machine.daemon(DaemonFault::None, &[], async |engine, _| {
        let request = CreateVm { name: Some("web".into()), ..CreateVm::default() };
        let accepted = engine.create(request).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
    });
    machine.vm().unwrap()
}

fn context(sim: &Arc<Sim>, record: &VmRecord) -> StepContext {
    StepContext {
        step: StepId::new("none yet"),
        drivers: Arc::new(sim.drivers(Arc::new(|_| ()))),
        vm: record.plan.clone(),
        spec: record.spec.clone(),
        run: record.run.clone(),
        interrupt: Interrupt::never(),
    }
}

/// Kinds of objects on the host, without the values that count process starts.
fn kinds(sim: &Sim, vm: &VmPlan) -> Vec<String> {
    sim.world().of(&vm.id).into_iter().map(str::to_owned).collect()
}

#[test]
fn apply_and_undo_are_safe_to_repeat() {
    let record = record();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(twice(&record));
}

async fn twice(record: &VmRecord) {
    let steps: Vec<Step> = [ListName::Create, ListName::Start].map(lists::all).concat();
    let sim = Sim::empty();
    let mut context = context(&sim, record);
    for step in steps.iter().rev() {
        context.step = step.id.clone();
        (step.undo)(&context).await.unwrap();
        assert_eq!(kinds(&sim, &record.plan), [""; 0], "{}", step.id.as_str());
    }
    let mut history = vec![kinds(&sim, &record.plan)];
    for step in &steps {
        context.step = step.id.clone();
        let fact = (step.apply)(&context).await.unwrap();
        remember(&mut context, step, fact);
        let once = kinds(&sim, &record.plan);
        let fact = (step.apply)(&context).await.unwrap();
        remember(&mut context, step, fact);
        assert_eq!(kinds(&sim, &record.plan), once, "{} applied twice", step.id.as_str());
        history.push(once);
    }
    for step in steps.iter().rev() {
        history.pop();
        context.step = step.id.clone();
        (step.undo)(&context).await.unwrap();
        let once = kinds(&sim, &record.plan);
        (step.undo)(&context).await.unwrap();
        assert_eq!(kinds(&sim, &record.plan), once, "{} undone twice", step.id.as_str());
    }
    assert_eq!(kinds(&sim, &record.plan), [""; 0]);
}

/// A repeated spawn or boot yields another process or boot id, which later steps look at.
fn remember(context: &mut StepContext, step: &Step, fact: Fact) {
    let run = context.run.as_mut().unwrap();
    match fact {
        Fact::BootId(boot_id) => run.boot_id = Some(boot_id),
        Fact::Shim(shim) => run.shim = Some(shim),
        Fact::Found(_, found) => drop(run.found.insert(step.id.clone(), found)),
        _ => {}
    }
}
