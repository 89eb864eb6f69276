//! What a create and a start consist of, each step beside its undo.
//!
//! Two lists with two lifetimes: what [`CREATE`] makes lasts as long as the VM, what [`START`]
//! makes lasts one run. No step of `START` makes or removes a disk, so no unwinding of a run can
//! lose data.

use std::pin::Pin;
use std::sync::Arc;

use banger_api::ApiError;
use banger_api::ErrorCode;
use banger_api::operation::stage;

use crate::drivers::{Applied, Attached, Drivers, GuestReady, Undone};
use crate::interrupt::Interrupt;
use crate::oplog::StepName;
use crate::plan::{ProcRef, RunPlan, VmPlan};

/// What a step is given.
pub struct StepContext {
    /// Drivers.
    pub drivers: Arc<Drivers>,
    /// The VM.
    pub vm: VmPlan,
    /// Its run so far.
    pub run: Option<RunPlan>,
    /// Ends waits early.
    pub interrupt: Interrupt,
}

impl StepContext {
    fn run(&self) -> Result<&RunPlan, ApiError> {
        self.run
            .as_ref()
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a step of a start without a run"))
    }
}

/// What a step found out that must be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Nothing.
    None(Applied),
    /// What the guest was given on its network.
    Network(Attached),
    /// What will forward the published ports, where that is a process.
    Forwarder(Option<ProcRef>),
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

/// A reversible change to the host.
pub struct Step {
    /// Its name in logs.
    pub name: StepName,
    /// The stage it is shown under.
    pub stage: &'static str,
    /// Makes the change; safe to repeat.
    pub apply: Apply,
    /// Takes it back; safe when it never happened.
    pub undo: Undo,
}

macro_rules! step {
    ($name:ident, $stage:ident, apply: |$a:ident| $apply:expr, undo: |$u:ident| $undo:expr) => {
        Step {
            name: StepName::$name,
            stage: stage::$stage,
            apply: |$a| Box::pin(async move { $apply }),
            undo: |$u| Box::pin(async move { $undo }),
        }
    };
}

/// What lasts as long as the VM.
pub const CREATE: &[Step] = &[
    step!(VmFolder, PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.create_folder(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.remove_folder(&c.vm).await),
    step!(RootDisk, PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.create_root(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.remove_root(&c.vm).await),
    step!(WorkDisk, PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.create_work(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.remove_work(&c.vm).await),
    step!(VmmHome, PREPARE_DISKS,
        apply: |c| c.drivers.vmm(&c.vm)?.create(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.vmm(&c.vm)?.remove(&c.vm).await),
    step!(Identity, PREPARE_DISKS,
        apply: |c| c.drivers.guest.create_identity(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.guest.remove_identity(&c.vm).await),
];

/// What lasts one run.
pub const START: &[Step] = &[
    step!(AttachDisks, PREPARE_DISKS,
        apply: |c| c.drivers.storage(&c.vm)?.attach(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.storage(&c.vm)?.detach(&c.vm).await),
    step!(Network, ATTACH_NETWORK,
        apply: |c| c.drivers.network(&c.vm)?.attach(&c.vm).await.map(Fact::Network),
        undo: |c| c.drivers.network(&c.vm)?.detach(&c.vm).await),
    step!(Forwarder, ATTACH_NETWORK,
    apply: |c| c.drivers.network(&c.vm)?.forwarder(&c.vm).await.map(Fact::Forwarder),
    undo: |c| match &c.run {
        Some(run) => c.drivers.network(&c.vm)?.unpublish(&c.vm, run).await,
        None => Ok(Undone::WasAbsent),
    }),
    // As with the shim below, the gate opens when the process is on record, and what it listens on
    // ends with it. It is early: a port that is taken should not cost a boot.
    step!(Forwards, ATTACH_NETWORK,
        apply: |c| {
            c.drivers.network(&c.vm)?.publish(&c.vm, c.run()?.lease.as_ref()).await.map(Fact::None)
        },
        undo: |_c| Ok(Undone::WasAbsent)),
    step!(RunFolder, LAUNCH_VMM,
        apply: |c| c.drivers.vmm(&c.vm)?.prepare(&c.vm).await.map(Fact::None),
        undo: |c| c.drivers.vmm(&c.vm)?.clear(&c.vm).await),
    step!(Shim, LAUNCH_VMM,
    apply: |c| c.drivers.vmm(&c.vm)?.spawn(&c.vm).await.map(Fact::Shim),
    undo: |c| match &c.run {
        Some(run) => c.drivers.vmm(&c.vm)?.end(&c.vm, run).await,
        // A broken VM is undone wholly, also when it broke without having run.
        None => Ok(Undone::WasAbsent),
    }),
    // The gate opens only here, when the shim's identity is on record. What the shim starts ends
    // with the shim, so this and the waits below have nothing of their own to undo.
    step!(Launch, LAUNCH_VMM,
        apply: |c| c.drivers.vmm(&c.vm)?.launch(&c.vm).await.map(Fact::Vmm),
        undo: |_c| Ok(Undone::WasAbsent)),
    step!(Boot, BOOT,
        apply: |c| {
            let lease = c.run()?.lease.as_ref();
            c.drivers.guest.boot(&c.vm, lease, &c.interrupt).await.map(Fact::BootId)
        },
        undo: |c| { c.drivers.guest.forget(&c.vm).await; Ok(Undone::WasAbsent) }),
    step!(Agent, WAIT_VSOCK_AGENT,
        apply: |c| {
            let boot_id = c.run()?.boot_id.clone().unwrap_or_default();
            let answered = c.drivers.guest.agent(&c.vm, &boot_id, &c.interrupt).await;
            answered.map(|()| Fact::None(Applied::Created))
        },
        undo: |_c| Ok(Undone::WasAbsent)),
    step!(Ready, WAIT_GUEST_READY,
        apply: |c| c.drivers.guest.ready(&c.vm, &c.interrupt).await.map(Fact::Ready),
        undo: |_c| Ok(Undone::WasAbsent)),
];
