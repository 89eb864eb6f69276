//! What is remembered of a VM.

use banger_api::vm::{StartReport, StoppedBecause, VmState};
use serde::{Deserialize, Serialize};

use crate::oplog::StepId;
use crate::plan::{RunPlan, VmPlan, VmSpec};
use crate::state::{Next, VmEvent, next};

/// Whether the VM is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// Its create has not ended; if it never does, the VM is removed.
    Making,
    /// It is there.
    Whole,
    /// A delete has begun; it can only be finished.
    Removing,
}

/// Whether a VM bound to its session is kept after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspect {
    /// Nothing to look at.
    No,
    /// It never became reachable, so somebody will want to look at it.
    Yes,
}

/// A VM as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Identity and what lasts as long as the VM.
    pub plan: VmPlan,
    /// What the user asks for at present; the next run begins with it.
    pub spec: VmSpec,
    /// Steps of its create in order: what a delete undoes.
    pub made: Vec<StepId>,
    /// State.
    pub state: VmState,
    /// Why it is stopped, or would be if all could have been undone.
    pub because: Option<StoppedBecause>,
    /// Whether it is whole.
    pub existence: Existence,
    /// Counts every change.
    pub generation: u64,
    /// The run in progress: present from the acceptance of a start until all of it is undone.
    pub run: Option<RunPlan>,
    /// Timings of the last successful start.
    pub start: Option<StartReport>,
    /// What could not be undone.
    pub problems: Vec<String>,
    /// When the guest rebooted itself lately, milliseconds since 1970.
    pub reboots: Vec<u64>,
    /// Whether it is kept for a look although its lifetime is over.
    pub inspect: Inspect,
}

impl VmRecord {
    /// A VM whose create was just accepted.
    pub fn new(plan: VmPlan, spec: VmSpec, made: Vec<StepId>) -> Self {
        Self {
            plan,
            spec,
            made,
            state: VmState::Stopped,
            because: Some(StoppedBecause::NeverStarted),
            existence: Existence::Making,
            generation: 0,
            run: None,
            start: None,
            problems: Vec::new(),
            reboots: Vec::new(),
            inspect: Inspect::No,
        }
    }

    /// The specification that counts now: that of the run in progress, or else what is asked for.
    pub fn spec_in_force(&self) -> &VmSpec {
        self.run.as_ref().map_or(&self.spec, |run| &run.spec)
    }

    /// Applies an event.
    ///
    /// # Errors
    /// The state and the event that do not go together; nothing is changed then.
    pub fn apply(&mut self, event: VmEvent) -> Result<Fate, IllegalEvent> {
        match next(self.state, event) {
            Next::To(state) => {
                self.state = state;
                // A broken VM keeps its story for when it is repaired.
                if !matches!(state, VmState::Stopped | VmState::Broken) {
                    self.because = None;
                }
                if state != VmState::Broken {
                    self.problems.clear();
                }
                Ok(Fate::Lives)
            }
            Next::Gone => Ok(Fate::Gone),
            Next::Illegal => Err(IllegalEvent { state: self.state, event }),
        }
    }

    /// Nothing may be touched until somebody looked, for the reason given.
    pub fn distrust(&mut self, problem: String) {
        if self.apply(VmEvent::Distrusted).is_ok() {
            self.problems = vec![problem];
            self.generation += 1;
        }
    }
}

/// Whether a VM exists after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does.
    Lives,
    /// It does not.
    Gone,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {event:?} is not possible in state {state:?}")]
pub struct IllegalEvent {
    /// Present state.
    pub state: VmState,
    /// The event.
    pub event: VmEvent,
}
