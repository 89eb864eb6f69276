//! Capabilities: features of a VM with effects on the host, as data.
//!
//! Parts that every VM has (root disk, NIC, shim, launch, boot) are steps of [`crate::lists`].
//! Every other feature is a [`Capability`]: one file in [`crate::capabilities`] with its pure
//! definition, and one file in `banger-host/src/capabilities` with its [`Effects`]. The step ids
//! connect them. Every part of either is optional.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::doctor::Check;

use crate::drivers::{Applied, Undone};
use crate::interrupt::Interrupt;
use crate::oplog::StepId;
use crate::plan::{RunPlan, VmPlan, VmSpec};

/// Decides on a change from the present specification to a requested one, given the run in
/// progress.
pub type DecideChange = fn(&VmSpec, &VmSpec, Option<&RunPlan>) -> Change;

/// Definition of a capability.
#[derive(Clone)]
pub struct Capability {
    /// Its name, one word.
    pub name: &'static str,
    /// Whether a VM uses it; if absent, every VM does.
    pub plan: Option<fn(&VmPlan, &VmSpec) -> Use>,
    /// When a change of the specification takes effect, given the run in progress; if absent, no
    /// change concerns it.
    pub change: Option<DecideChange>,
    /// Copies its values from the second specification to the first, which is that of a run in
    /// progress; required if a change is live.
    pub live: Option<fn(&mut VmSpec, &VmSpec)>,
    /// Its reversible steps, in order within each slot.
    pub steps: &'static [SlotStep],
}

/// Whether a VM uses a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It does: the lists contain its steps.
    Used,
    /// It does not.
    Unused,
}

/// When a change of the specification takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing of this capability changed.
    None,
    /// At once: its steps are undone and applied again during the run, see [`crate::change`].
    Live,
    /// At the next start.
    NextStart,
    /// The change is not possible, with the reason.
    Refused(String),
}

/// Places in the lists for steps of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// In a create, after the root disk: its objects exist as long as the VM.
    Lasting,
    /// In a start, after the disks are attached.
    AfterDisks,
    /// In a start, after the network is attached and before the VMM is prepared.
    AfterNetwork,
    /// In a start, after the guest is ready.
    AfterReady,
}

/// A reversible step and its place, carried out by the [`Effect`] with the same id.
#[derive(Debug, Clone)]
pub struct SlotStep {
    /// Its id in logs, plans and crash points.
    pub id: StepId,
    /// Its place.
    pub slot: Slot,
    /// The stage in which it is shown.
    pub stage: &'static str,
}

impl Capability {
    /// Whether a VM of this specification uses it.
    pub fn is_used(&self, vm: &VmPlan, spec: &VmSpec) -> bool {
        self.plan.is_none_or(|plan| plan(vm, spec) == Use::Used)
    }
}

/// Input of an effect.
#[derive(Debug, Clone, Copy)]
pub struct VmContext<'a> {
    /// The VM.
    pub vm: &'a VmPlan,
    /// The specification in force: within a run, the one with which it started.
    pub spec: &'a VmSpec,
    /// The run, if there is one.
    pub run: Option<&'a RunPlan>,
    /// Interrupts waits of a step.
    pub interrupt: Option<&'a Interrupt>,
}

/// Result of an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Whether it changed anything.
    pub applied: Applied,
    /// Data for the undo, a later step or a later daemon: [`RunPlan::found`].
    pub found: Option<serde_json::Value>,
    /// Shown to the user; the operation continues.
    pub warnings: Vec<String>,
}

impl From<Applied> for Made {
    fn from(applied: Applied) -> Self {
        Self { applied, found: None, warnings: Vec::new() }
    }
}

/// A reversible change to the host.
#[async_trait]
pub trait Effect: Send + Sync {
    /// Makes the change; idempotent.
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError>;
    /// Undoes it; safe if apply never ran.
    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError>;
}

/// Checks the requirements of a start or a live change before its first step. In a live change,
/// the context has the run with the specification before the change.
#[async_trait]
pub trait Preflight: Send + Sync {
    /// Checks without changes.
    async fn check(&self, context: VmContext<'_>) -> Result<(), ApiError>;
}

/// Checks a run that another daemon started.
#[async_trait]
pub trait Adopt: Send + Sync {
    /// Whether the objects of the steps are still valid. If not, the steps are undone and applied
    /// again.
    async fn holds(&self, context: VmContext<'_>) -> bool;
}

/// Whether VMs use the shared state of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// VMs are running: restore the state if another program changed it.
    InUse,
    /// No VM is running, or the daemon ends: release the daemon's state.
    Idle,
}

/// Maintains state of the host that VMs share.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Called every few seconds; cheap if there is nothing to do.
    async fn maintain(&self, usage: Usage);
}

/// Checks of the host for `doctor`.
#[async_trait]
pub trait Doctor: Send + Sync {
    /// Checks without changes.
    async fn checks(&self) -> Vec<Check>;
}

/// The effects of one capability.
#[derive(Clone, Default)]
pub struct Effects {
    /// Name of the capability.
    pub name: &'static str,
    /// An effect for each of its steps.
    pub steps: Vec<(StepId, Arc<dyn Effect>)>,
    /// Checks before a start.
    pub preflight: Option<Arc<dyn Preflight>>,
    /// Checks when a new daemon adopts a VM.
    pub adopt: Option<Arc<dyn Adopt>>,
    /// Periodic maintenance.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    /// Checks of the host.
    pub doctor: Option<Arc<dyn Doctor>>,
}
