//! Simulated effects: one object for every step of every capability, so that a new capability
//! needs no change here.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;

use super::Sim;
use crate::capabilities::ALL;
use crate::capability::{Adopt, Effect, Effects, Made, Slot, VmContext};
use crate::drivers::Undone;
use crate::oplog::StepId;

struct SimEffect {
    sim: Arc<Sim>,
    step: StepId,
}

struct SimAdopt {
    sim: Arc<Sim>,
    steps: Vec<StepId>,
}

/// Effects for all capabilities.
pub(super) fn all(sim: &Arc<Sim>) -> Vec<Effects> {
    let effects = ALL.iter().map(|capability| {
        let steps: Vec<StepId> = capability.steps.iter().map(|step| step.id.clone()).collect();
        let of_a_run = capability.steps.iter().filter(|step| step.slot != Slot::Lasting);
        let of_a_run = of_a_run.map(|step| step.id.clone()).collect();
        let effect = |step: &StepId| {
            let effect = SimEffect { sim: sim.clone(), step: step.clone() };
            (step.clone(), Arc::new(effect) as Arc<dyn Effect>)
        };
        Effects {
            name: capability.name,
            steps: steps.iter().map(effect).collect(),
            adopt: Some(Arc::new(SimAdopt { sim: sim.clone(), steps: of_a_run })),
            ..Effects::default()
        }
    });
    effects.collect()
}

#[async_trait]
impl Effect for SimEffect {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let number = {
            let mut inner = self.sim.inner();
            inner.world.spawned += 1;
            // With what a live change replaces, so that tests see which set is in place.
            format!("{} {:?}", inner.world.spawned, context.spec.publish)
        };
        let applied = self.sim.make_with(self.step.as_str(), context.vm, number.clone())?;
        Ok(Made { applied, found: context.run.map(|_| number.into()), warnings: Vec::new() })
    }

    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError> {
        self.sim.unmake(self.step.as_str(), context.vm)
    }
}

#[async_trait]
impl Adopt for SimAdopt {
    async fn holds(&self, context: VmContext<'_>) -> bool {
        let inner = self.sim.inner();
        let world = &inner.world;
        let known = |step: &StepId| context.run.and_then(|run| run.found::<String>(step));
        let holds =
            |step: &StepId| world.get(step.as_str(), &context.vm.id) == known(step).as_deref();
        self.steps.iter().all(holds)
    }
}
