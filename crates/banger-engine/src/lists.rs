//! The steps of a create and of a start, each with its undo.
//!
//! Two lists with two lifetimes: objects of [`CREATE`] exist as long as the VM, objects of
//! [`START`] for one run. No step of `START` creates or removes a disk, so undoing a run never
//! loses data.
//!
//! The lists contain the steps that every VM has. Between them are the slots for the steps of
//! capabilities ([`crate::capability`]).

use std::pin::Pin;
use std::sync::Arc;

use banger_api::ApiError;
use banger_api::ErrorCode;
use banger_api::operation::stage;

use crate::capabilities::ALL;
use crate::capability::{Capability, Slot, SlotStep, VmContext};
use crate::devices::Devices;
use crate::drivers::{Applied, Attached, Drivers, GuestReady, Undone};
use crate::interrupt::Interrupt;
use crate::oplog::StepId;
use crate::plan::{ProcRef, RunPlan, VmPlan, VmSpec};

/// The list of a step or crash point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListName {
    /// [`CREATE`].
    Create,
    /// [`START`].
    Start,
    /// [`RESET`].
    Reset,
}

impl ListName {
    /// Its name in crash points.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Reset => "reset",
        }
    }
}

/// Input of a step.
pub struct StepContext {
    /// The step.
    pub step: StepId,
    /// The drivers.
    pub drivers: Arc<Drivers>,
    /// The VM.
    pub vm: VmPlan,
    /// The specification in force: within a run, the one with which it started.
    pub spec: VmSpec,
    /// Its run so far.
    pub run: Option<RunPlan>,
    /// Interrupts waits.
    pub interrupt: Interrupt,
}

impl StepContext {
    fn effect_context(&self) -> VmContext<'_> {
        let interrupt = Some(&self.interrupt);
        VmContext { vm: &self.vm, spec: &self.spec, run: self.run.as_ref(), interrupt }
    }

    /// The devices of this run.
    fn devices(&self) -> Result<Devices, ApiError> {
        self.drivers.devices(&self.vm, &self.spec, self.run()?.lease.as_ref())
    }

    fn run(&self) -> Result<&RunPlan, ApiError> {
        self.run
            .as_ref()
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a step of a start without a run"))
    }
}

/// The result of a step, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// No result to record.
    None(Applied),
    /// The network of the guest.
    Network(Attached),
    /// Data for the step's undo or a later daemon.
    Found(Applied, serde_json::Value),
    /// No result to record, but warnings for the user.
    Warned(Applied, Vec<String>),
    /// The shim's identity.
    Shim(ProcRef),
    /// The VMM's process id.
    Vmm(u32),
    /// The guest's boot id.
    BootId(String),
    /// The guest's own timeline.
    Ready(GuestReady),
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Apply = for<'a> fn(&'a StepContext) -> BoxFuture<'a, Result<Fact, ApiError>>;
type Undo = for<'a> fn(&'a StepContext) -> BoxFuture<'a, Result<Undone, ApiError>>;

/// A line of a list.
pub enum Line {
    /// A step that every VM has.
    Step(Step),
    /// A place for steps of capabilities.
    Slot(Slot),
}

/// A reversible change to the host.
#[derive(Clone)]
pub struct Step {
    /// Its id in logs, plans and crash points.
    pub id: StepId,
    /// The stage in which it is shown.
    pub stage: &'static str,
    /// Makes the change; idempotent.
    pub apply: Apply,
    /// Undoes it; safe if apply never ran.
    pub undo: Undo,
}

macro_rules! step {
    ($id:literal, $stage:ident, apply: |$a:ident| $apply:expr, undo: |$u:ident| $undo:expr) => {
        Line::Step(Step {
            id: StepId::new($id),
            stage: stage::$stage,
            apply: |$a| Box::pin(async move { $apply }),
            undo: |$u| Box::pin(async move { $undo }),
        })
    };
}

/// Steps whose objects exist as long as the VM.
pub const CREATE: &[Line] = &[
    step!("vm_folder", PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.create_folder(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.remove_folder(&c.vm).await),
    step!("root_disk", PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.create_root(&c.vm, &c.spec).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.remove_root(&c.vm).await),
    step!("vmm_home", PREPARE_DISKS,
        apply: |c| c.drivers.claim(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.release(&c.vm).await),
    Line::Slot(Slot::Lasting),
];

/// Steps whose objects exist for one run.
pub const START: &[Line] = &[
    step!("attach_disks", PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.attach(&c.vm, &c.spec).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.detach(&c.vm).await),
    Line::Slot(Slot::AfterDisks),
    step!("network", ATTACH_NETWORK,
        apply: |c| c.drivers.network(&c.vm)?.attach(&c.vm, &c.spec).await.map(Fact::Network),
        undo: |c| c.drivers.network(&c.vm)?.detach(&c.vm).await),
    Line::Slot(Slot::AfterNetwork),
    step!("run_folder", LAUNCH_VMM,
        apply: |c| c.drivers.vmm(&c.vm)?.prepare(&c.vm, &c.devices()?).await.map(Fact::None),
        undo: |c| c.drivers.vmm(&c.vm)?.clear(&c.vm).await),
    step!("shim", LAUNCH_VMM,
    apply: |c| c.drivers.vmm(&c.vm)?.spawn(&c.vm).await.map(Fact::Shim),
    undo: |c| match &c.run {
        Some(run) => c.drivers.vmm(&c.vm)?.end(&c.vm, run).await,
        // A broken VM without a run on record: all steps are undone.
        None => Ok(Undone::WasAbsent),
    }),
    // Opens the gate, now that the shim's process reference is on record. Processes of the shim end
    // with it, so this step and the waits below need no undo.
    step!("launch", LAUNCH_VMM,
        apply: |c| {
            let devices = c.devices()?;
            c.drivers.vmm(&c.vm)?.launch(&c.vm, &c.spec, &devices).await.map(Fact::Vmm)
        },
        undo: |_c| Ok(Undone::WasAbsent)),
    step!("boot", BOOT,
        apply: |c| {
            let devices = c.devices()?;
            let guest = &c.drivers.guest;
            guest.boot(&c.vm, c.run()?, &devices, &c.interrupt).await.map(Fact::BootId)
        },
        undo: |c| { c.drivers.guest.forget(&c.vm).await; Ok(Undone::WasAbsent) }),
    step!("agent", WAIT_VSOCK_AGENT,
        apply: |c| {
            let boot_id = c.run()?.boot_id.clone().unwrap_or_default();
            let answered = c.drivers.guest.agent(&c.vm, &boot_id, &c.interrupt).await;
            answered.map(|()| Fact::None(Applied::Created))
        },
        undo: |_c| Ok(Undone::WasAbsent)),
    step!("ready", WAIT_GUEST_READY,
        apply: |c| c.drivers.guest.ready(&c.vm, &c.interrupt).await.map(Fact::Ready),
        undo: |_c| Ok(Undone::WasAbsent)),
    Line::Slot(Slot::AfterReady),
];

/// The new root disk of a reset.
pub const NEW_ROOT: StepId = StepId::new("new_root");
/// The replacement of the old root disk by the new one.
pub const REPLACE_ROOT: StepId = StepId::new("replace_root");

/// Steps of a reset of the root disk ([`crate::reset`]).
pub const RESET: &[Line] = &[
    step!("new_root", PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.create_new_root(&c.vm, &c.spec).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.remove_new_root(&c.vm).await),
    // Applied only after the commit of the reset. The old disk is gone then, so there is no undo.
    step!("replace_root", PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.replace_root(&c.vm).await.map(Fact::None),
        undo: |_c| Ok(Undone::WasAbsent)),
];

/// A step of a capability, with the host's effect of the same id.
fn capability_step(step: &SlotStep) -> Step {
    Step {
        id: step.id.clone(),
        stage: step.stage,
        apply: |c| {
            Box::pin(async move {
                let made = c.drivers.effect(&c.step)?.apply(c.effect_context()).await?;
                Ok(match made.found {
                    Some(found) => Fact::Found(made.applied, found),
                    None if made.warnings.is_empty() => Fact::None(made.applied),
                    None => Fact::Warned(made.applied, made.warnings),
                })
            })
        },
        undo: |c| {
            Box::pin(async move { c.drivers.effect(&c.step)?.undo(c.effect_context()).await })
        },
    }
}

/// The steps of a list, with those of the `used` capabilities in their slots.
fn expand(list: ListName, used: impl Fn(&Capability) -> bool) -> Vec<Step> {
    let lines = match list {
        ListName::Create => CREATE,
        ListName::Start => START,
        ListName::Reset => RESET,
    };
    let capabilities: Vec<&Capability> = ALL.iter().filter(|one| used(one)).collect();
    let steps = lines.iter().flat_map(|line| match line {
        Line::Step(step) => vec![step.clone()],
        Line::Slot(slot) => {
            let all = capabilities.iter().flat_map(|capability| capability.steps);
            all.filter(|step| step.slot == *slot).map(capability_step).collect()
        }
    });
    steps.collect()
}

/// All steps of a list, including those of all capabilities.
pub fn all(list: ListName) -> Vec<Step> {
    expand(list, |_| true)
}

/// Ids of the steps of a VM with this specification, in order.
pub fn planned(list: ListName, vm: &VmPlan, spec: &VmSpec) -> Vec<StepId> {
    expand(list, |capability| capability.is_used(vm, spec)).into_iter().map(|s| s.id).collect()
}

/// The step of a list with this id; `None` if only another build has it.
pub fn find(list: ListName, id: &StepId) -> Option<Step> {
    all(list).into_iter().find(|step| &step.id == id)
}
