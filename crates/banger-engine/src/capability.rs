//! Capabilities: features of a VM that the host has a part in, as data.
//!
//! What every VM has (root disk, NIC, shim, launch, boot) stands in [`crate::lists`]. Everything
//! else is a [`Capability`]: one file in [`crate::capabilities`] says what it is, purely, and one
//! file in `banger-host/src/capabilities` does it, as [`Effects`]. They meet in the ids of steps.
//! Every part of either is optional.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::doctor::Check;

use crate::drivers::{Applied, Undone};
use crate::oplog::StepId;
use crate::plan::{RunPlan, VmPlan, VmSpec};

/// A feature of VMs: what can be decided about it without the host.
#[derive(Clone)]
pub struct Capability {
    /// One word.
    pub name: &'static str,
    /// Whether a VM uses it; where absent, every VM does.
    pub plan: Option<fn(&VmPlan, &VmSpec) -> Use>,
    /// What a change of the specification needs; where absent, nothing of it concerns this.
    pub change: Option<fn(&VmSpec, &VmSpec) -> Change>,
    /// Its reversible steps, in order within each slot.
    pub steps: &'static [SlotStep],
}

/// Whether a VM uses a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It does: its steps are part of the lists.
    Used,
    /// It does not.
    Unused,
}

/// What a change of the specification needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing of this capability changed.
    None,
    /// The steps of a run are undone and applied again while it goes on.
    Live,
    /// The next start takes it over.
    NextStart,
    /// It cannot be changed, and why.
    Refused(String),
}

/// Places in the lists where steps of capabilities go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// In a create, when the root disk is there: lasts as long as the VM.
    Lasting,
    /// In a start, when the disks are attached.
    AfterDisks,
    /// In a start, when the network is attached and before anything of the VMM exists.
    AfterNetwork,
    /// In a start, when the guest is ready.
    AfterReady,
}

/// A reversible step and its place. What it does is an [`Effect`] with the same id.
#[derive(Debug, Clone)]
pub struct SlotStep {
    /// Its id in logs, plans and crash points.
    pub id: StepId,
    /// Where it goes.
    pub slot: Slot,
    /// The stage it is shown under.
    pub stage: &'static str,
}

impl Capability {
    /// Whether a VM of this specification uses it.
    pub fn is_used(&self, vm: &VmPlan, spec: &VmSpec) -> bool {
        self.plan.is_none_or(|plan| plan(vm, spec) == Use::Used)
    }
}

/// A VM as an effect sees it.
#[derive(Debug, Clone, Copy)]
pub struct VmContext<'a> {
    /// Identity.
    pub vm: &'a VmPlan,
    /// The specification that counts: in a run, the one that it began with.
    pub spec: &'a VmSpec,
    /// The run, within one.
    pub run: Option<&'a RunPlan>,
}

/// What an apply made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it did.
    pub applied: Applied,
    /// What the undo, a later step or a later daemon needs of it: [`RunPlan::found`].
    pub found: Option<serde_json::Value>,
}

impl From<Applied> for Made {
    fn from(applied: Applied) -> Self {
        Self { applied, found: None }
    }
}

/// A reversible change to the host.
#[async_trait]
pub trait Effect: Send + Sync {
    /// Makes the change; safe to repeat.
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError>;
    /// Takes it back; safe when it never happened.
    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError>;
}

/// Checks what a start needs, before anything of it is begun.
#[async_trait]
pub trait Preflight: Send + Sync {
    /// Changes nothing.
    async fn check(&self, context: VmContext<'_>) -> Result<(), ApiError>;
}

/// Looks at a run that another daemon began.
#[async_trait]
pub trait Adopt: Send + Sync {
    /// Whether what the steps made is still there. Where not, they are undone and applied again.
    async fn holds(&self, context: VmContext<'_>) -> bool;
}

/// How much the VMs need of what they share on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// VMs run: it is to be there and right, also if another program changed it.
    InUse,
    /// None runs, or the daemon ends: what is the daemon's is to be released.
    Idle,
}

/// Looks after what VMs share on the host.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Called every few seconds, so it costs little where there is nothing to do.
    async fn tend(&self, need: Need);
}

/// Says what the host has and lacks for it.
#[async_trait]
pub trait Doctor: Send + Sync {
    /// Changes nothing.
    async fn checks(&self) -> Vec<Check>;
}

/// What the host does for one capability.
#[derive(Clone, Default)]
pub struct Effects {
    /// Name of the capability.
    pub name: &'static str,
    /// An effect for each of its steps.
    pub steps: Vec<(StepId, Arc<dyn Effect>)>,
    /// Before a start.
    pub preflight: Option<Arc<dyn Preflight>>,
    /// After a daemon was replaced.
    pub adopt: Option<Arc<dyn Adopt>>,
    /// Now and then.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    /// In `doctor`.
    pub doctor: Option<Arc<dyn Doctor>>,
}
