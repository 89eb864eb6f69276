//! The record of a VM in the store.

use banger_api::operation::VmTag;
use banger_api::vm::{StartReport, StoppedBecause, VmState};
use serde::{Deserialize, Serialize};

use crate::oplog::StepId;
use crate::plan::{RunPlan, VmPlan, VmSpec};
use crate::state::{Next, VmEvent, next};

/// Whether the VM is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// Its create is in progress; if the daemon ends meanwhile, the VM is removed.
    #[serde(rename = "making")]
    Creating,
    /// All steps of its create have succeeded.
    #[serde(rename = "whole")]
    Created,
    /// Its delete is in progress and can only be completed.
    #[serde(rename = "removing")]
    Deleting,
}

/// Whether a VM is kept although its lifetime is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspect {
    /// It is deleted.
    No,
    /// Its start failed, so the user can inspect it.
    Yes,
}

/// The state in which the user wants a VM to be: set by a start, a stop, a kill or a poweroff in
/// the guest, and kept when its VMM dies or the host restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It stays stopped.
    #[default]
    Stopped,
    /// It runs.
    Running,
}

/// Progress of a reset of the root disk ([`crate::reset`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// The new disk is being created; the reset can only be undone.
    Preparing,
    /// The new disk is created; the reset can only be completed.
    Decided,
}

/// A VM as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Identity and permanent choices.
    pub plan: VmPlan,
    /// The requested specification; the next run starts with it.
    pub spec: VmSpec,
    /// Steps of its create in order; a delete undoes them.
    pub made: Vec<StepId>,
    /// State.
    pub state: VmState,
    /// Why it is stopped, or why it was being stopped before it became broken.
    pub because: Option<StoppedBecause>,
    /// Whether it is complete.
    pub existence: Existence,
    /// Number of changes.
    pub generation: u64,
    /// The run in progress: set from the acceptance of a start until all its steps are undone.
    pub run: Option<RunPlan>,
    /// Timings of the last successful start.
    pub start: Option<StartReport>,
    /// Errors of the failed undo.
    pub problems: Vec<String>,
    /// Exit code of the machine's program at the end of the last run, if it was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Times of the guest's recent reboots, milliseconds since 1970.
    pub reboots: Vec<u64>,
    /// Whether it is kept although its lifetime is over.
    pub inspect: Inspect,
    /// The state that the user wants.
    #[serde(default)]
    pub wanted: Wanted,
    /// Automatic starts in a row that failed or were not completed.
    #[serde(default)]
    pub autostart_failures: u32,
    /// The reset in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
}

impl VmRecord {
    /// A VM whose create has just been accepted.
    pub fn new(plan: VmPlan, spec: VmSpec, made: Vec<StepId>) -> Self {
        Self {
            plan,
            spec,
            made,
            state: VmState::Stopped,
            because: Some(StoppedBecause::NeverStarted),
            existence: Existence::Creating,
            generation: 0,
            run: None,
            start: None,
            problems: Vec::new(),
            exit_code: None,
            reboots: Vec::new(),
            inspect: Inspect::No,
            wanted: Wanted::Stopped,
            autostart_failures: 0,
            reset: None,
        }
    }

    /// Records what the user wants; automatic starts are tried again.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.autostart_failures = 0;
    }

    /// Its id and name.
    pub fn tag(&self) -> VmTag {
        VmTag { id: self.plan.id.clone(), name: self.plan.name.clone() }
    }

    /// The specification in force: that of the run in progress, otherwise the requested one.
    pub fn spec_in_force(&self) -> &VmSpec {
        self.run.as_ref().map_or(&self.spec, |run| &run.spec)
    }

    /// Applies an event.
    ///
    /// # Errors
    /// The event is not possible in the present state; nothing is changed.
    pub fn apply(&mut self, event: VmEvent) -> Result<Presence, IllegalEvent> {
        match next(self.state, event) {
            Next::To(state) => {
                self.state = state;
                // A broken VM keeps the reason until it is repaired.
                if !matches!(state, VmState::Stopped | VmState::Broken) {
                    self.because = None;
                }
                if state != VmState::Broken {
                    self.problems.clear();
                }
                Ok(Presence::Exists)
            }
            Next::Removed => Ok(Presence::Removed),
            Next::Illegal => Err(IllegalEvent { state: self.state, event }),
        }
    }

    /// Makes the VM broken, because its record or log cannot be trusted.
    pub fn mark_invalid(&mut self, problem: String) {
        if self.apply(VmEvent::RecordInvalid).is_ok() {
            self.problems = vec![problem];
            self.generation += 1;
        }
    }
}

/// Whether a VM exists after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It exists.
    Exists,
    /// It was removed.
    Removed,
}

/// An event that is not possible in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {event:?} is not possible in state {state:?}")]
pub struct IllegalEvent {
    /// Present state.
    pub state: VmState,
    /// The event.
    pub event: VmEvent,
}
