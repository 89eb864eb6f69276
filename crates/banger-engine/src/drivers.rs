//! The drivers: traits for changes to the host.
//!
//! Every apply is idempotent, every undo is safe if the apply never ran, and both return whether
//! they changed anything. No future is dropped before it ends: long waits take an [`Interrupt`] and
//! return when it is raised. Errors are [`ApiError`]s, ready to be shown.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::builds::{BuildLog, Builds, Capture, Commit, GuestCommand, GuestExit, GuestOutput};
pub use crate::driver_set::{CrashPoints, Drivers};
pub use crate::images_driver::{
    Archive, GivenKernel, Images, KernelFiles, Registration, Replaced, WantedKernel,
};
pub use crate::progress::Progress;
use async_trait::async_trait;
use banger_api::boot::BootView;
use banger_api::doctor::{Check, Leftover};
use banger_api::handover::HandedOver;
use banger_api::vm::{DiskView, Timing, VmPaths};
use banger_api::{ApiError, VmId};
pub use banger_base::{ExitStory, GuestEnd, RunFacts};

use crate::capability::Upkeep;
use crate::devices::{
    Devices, Drive, NetworkAbilities, Nic, RootContent, StorageAbilities, VmmAbilities,
};
use crate::interrupt::Interrupt;
use crate::meter::{GuestUsage, NicMeter, VmmMeter};
use crate::plan::{BootSet, DriverPlan, Lease, ProcRef, RunPlan, VmPlan, VmSpec};

/// Result of an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The object was created.
    Created,
    /// The object existed.
    AlreadyThere,
}

/// Result of an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// The object was removed.
    Removed,
    /// The object did not exist.
    WasAbsent,
}

/// The files that together have the root file system of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootFiles {
    /// A file system of its own.
    Whole {
        /// Its disk.
        disk: PathBuf,
    },
    /// A private layer that the guest mounts over the image.
    Layer {
        /// The layer.
        layer: PathBuf,
        /// The image.
        image: PathBuf,
    },
    /// The image with changed chunks.
    Snapshot {
        /// The changes: a persistent snapshot of device-mapper.
        changes: PathBuf,
        /// The image.
        image: PathBuf,
        /// Length of the root disk in bytes.
        bytes: u64,
    },
}

/// Disks.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Creates the VM's folder.
    async fn create_folder(&self, vm: &VmPlan) -> Result<Applied, ApiError>;
    /// Removes the VM's folder with its content.
    async fn remove_folder(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Creates the root disk, or its private layer.
    async fn create_root(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError>;
    /// Removes it, and the new one of a reset.
    async fn remove_root(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Creates a new root disk beside the present one, on stable storage; removes the new one of an
    /// earlier attempt first.
    async fn create_new_root(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError>;
    /// Removes the new root disk.
    async fn remove_new_root(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Replaces the root disk by the new one, atomically; without a new one, does nothing.
    async fn replace_root(&self, vm: &VmPlan) -> Result<Applied, ApiError>;
    /// Attaches the disks for a VMM.
    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError>;
    /// Undoes attach.
    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Its requirements and results.
    fn abilities(&self) -> StorageAbilities;
    /// Repair of disks under running VMs, if there is any.
    fn repair(&self) -> Option<&dyn DiskRepair> {
        None
    }
    /// The drives of a VM whose disks are attached, in the order in which the guest sees them.
    fn drives(&self, vm: &VmPlan) -> Vec<Drive>;
    /// The files with the root file system of a VM.
    fn root_files(&self, vm: &VmPlan, spec: &VmSpec) -> RootFiles;
    /// Virtual and allocated sizes.
    async fn usage(&self, vm: &VmPlan, spec: &VmSpec) -> DiskView;
}

/// Repair of disks that the host could not write.
#[async_trait]
pub trait DiskRepair: Send + Sync {
    /// Makes the disks of a running VM usable again, once the host has room.
    async fn repair(&self, vm: &VmPlan) -> Result<Applied, ApiError>;
}

/// Result of attaching a VM to its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Whether it changed anything.
    pub applied: Applied,
    /// The guest's address, if other hosts can reach it.
    pub lease: Option<Lease>,
}

/// Network of a VM.
#[async_trait]
pub trait Network: Send + Sync {
    /// Creates the objects to which the VMM connects.
    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Attached, ApiError>;
    /// Removes them.
    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Its requirements and results.
    fn abilities(&self) -> NetworkAbilities;
    /// The network interface of an attached VM; `lease` is the result of attach.
    fn nic(&self, vm: &VmPlan, spec: &VmSpec, lease: Option<&Lease>) -> Nic;
    /// Counters of network interfaces, if the host has them.
    fn counters(&self) -> Option<&dyn NicMeter> {
        None
    }
    /// Maintenance of the state that its VMs share, if there is any.
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        None
    }
}

/// A VMM that is alive without a run on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// Process id of the VMM or its companion.
    pub pid: u32,
    /// Its shim, if known.
    pub shim: Option<ProcRef>,
}

/// A virtual machine monitor, its companion and the shim that owns both.
#[async_trait]
pub trait Vmm: Send + Sync {
    /// Its requirements, and the devices it supports.
    fn abilities(&self) -> VmmAbilities;
    /// Checks the requirements of a start without changes.
    async fn preflight(&self, vm: &VmPlan) -> Result<(), ApiError>;
    /// Creates the run folder and listens for the guest's hello in it.
    async fn prepare(&self, vm: &VmPlan, devices: &Devices) -> Result<Applied, ApiError>;
    /// Removes the run folder with every socket in it.
    async fn clear(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Starts the shim; it waits at its gate.
    async fn spawn(&self, vm: &VmPlan) -> Result<ProcRef, ApiError>;
    /// Opens the gate; returns the VMM's process id once shim, companion and VMM are up.
    async fn launch(&self, vm: &VmPlan, spec: &VmSpec, devices: &Devices) -> Result<u32, ApiError>;
    /// Pauses the vCPUs; returns when they have stopped. Idempotent.
    async fn pause(&self, vm: &VmPlan, run: &RunPlan) -> Result<(), ApiError>;
    /// Resumes the vCPUs after [`Self::pause`]; returns when they run. Idempotent. A guest that the
    /// VMM itself has paused, for a full disk of the host, stays paused.
    async fn resume(&self, vm: &VmPlan, run: &RunPlan) -> Result<(), ApiError>;
    /// Ends shim, companion and VMM, and waits until they have ended.
    async fn end(&self, vm: &VmPlan, run: &RunPlan) -> Result<Undone, ApiError>;
    /// Resolves when the VMM has ended, with its story.
    async fn exited(&self, vm: &VmPlan, run: &RunPlan) -> ExitStory;
    /// The VMM of a VM without a run on record, if one is alive: two VMMs must not use its disks.
    async fn stray(&self, vm: &VmPlan) -> Option<Stray>;
    /// State of a run that another daemon started.
    async fn facts(&self, vm: &VmPlan, run: &RunPlan) -> RunFacts;
    /// Logs of the VM.
    fn paths(&self, vm: &VmPlan) -> VmPaths;
    /// Requests a shutdown from the guest's kernel, if the VMM can.
    fn power_button(&self) -> Option<&dyn PowerButton> {
        None
    }
    /// Notices about a run, if the VMM has any.
    fn notices(&self) -> Option<&dyn Notices> {
        None
    }
    /// Counters of its processes, if they can be read.
    fn meter(&self) -> Option<&dyn VmmMeter> {
        None
    }
}

/// Requests a shutdown from the guest's kernel if its agent does not answer.
#[async_trait]
pub trait PowerButton: Send + Sync {
    /// Presses it.
    async fn press(&self, vm: &VmPlan) -> Result<(), ApiError>;
}

/// Notices for the user about a run.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Why the vCPUs are paused, or that the host's disk is nearly full; each a sentence without a
    /// full stop. `devices` are those of the run.
    async fn of(&self, vm: &VmPlan, devices: &Devices) -> Vec<String>;
    /// Whether the VMM has paused the guest because of a failed disk request.
    fn is_held(&self, vm: &VmPlan) -> bool;
}

/// The guest reported ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReady {
    /// Its stages.
    pub timeline: Vec<Timing>,
    /// Its warnings, and those about files of the host.
    pub warnings: Vec<String>,
    /// Files of the host that it received.
    pub handed_over: Vec<HandedOver>,
}

/// Answer of the agent to a health request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestHealth {
    /// Boot id of the guest.
    pub boot_id: String,
    /// Milliseconds since its kernel started.
    pub uptime_ms: u64,
    /// Time the answer took, in microseconds.
    pub round_trip_us: u64,
    /// Number of restarts of the agent in this run.
    pub agent_restarts: u32,
}

/// Whether a guest's clock ran without interruption since the last comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockHistory {
    /// It did: it is never set back by a small difference, which is slewed.
    Continuous,
    /// The guest was paused, or the host slept: the clock is set, forwards or backwards.
    Interrupted,
}

/// Result of a comparison of clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestClock {
    /// The guest's clock showed the host's time.
    Right,
    /// It did not, and the agent corrects it.
    Corrected,
}

/// The agent in the guest.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Waits for the first hello, sends the configuration, stops listening. Returns the boot id.
    async fn boot(
        &self,
        vm: &VmPlan,
        run: &RunPlan,
        devices: &Devices,
        interrupt: &Interrupt,
    ) -> Result<String, ApiError>;
    /// Waits for the agent's first answer and checks that it comes from this boot.
    async fn agent(&self, vm: &VmPlan, boot_id: &str, i: &Interrupt) -> Result<(), ApiError>;
    /// Waits for ready.
    async fn ready(&self, vm: &VmPlan, interrupt: &Interrupt) -> Result<GuestReady, ApiError>;
    /// Drops the state that the three calls above keep for a run.
    async fn forget(&self, vm: &VmPlan);
    /// A health request.
    async fn health(&self, vm: &VmPlan) -> Result<GuestHealth, ApiError>;
    /// Counters of the guest; each absent if the agent does not report it.
    async fn usage(&self, vm: &VmPlan) -> Result<GuestUsage, ApiError>;
    /// Boot progress of the guest's init: returns when the boot is over, or after `wait`.
    async fn boot_progress(&self, vm: &VmPlan, wait: Duration) -> Result<BootView, ApiError>;
    /// Requests that the guest powers off within `grace`, after which the VMM is ended; returns
    /// when the agent has accepted the request.
    async fn power_off(&self, vm: &VmPlan, grace: Duration) -> Result<(), ApiError>;
    /// Compares the guest's wall clock with the host's, and has the agent correct it.
    async fn correct_clock(
        &self,
        vm: &VmPlan,
        history: ClockHistory,
    ) -> Result<GuestClock, ApiError>;
    /// A connected stream socket to the agent's HTTP, handshake done.
    async fn connect(&self, vm: &VmPlan) -> Result<OwnedFd, ApiError>;
}

/// Resources of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Free bytes where the disks are kept.
    pub disk_free_bytes: u64,
}

/// The host itself.
#[async_trait]
pub trait Host: Send + Sync {
    /// Wall clock, milliseconds since 1970.
    fn now_unix_ms(&self) -> u64;
    /// Random bits.
    fn entropy(&self) -> u64;
    /// New at each boot of the host.
    fn boot_id(&self) -> String;
    /// Copies the ends of a VM's logs to a file that outlives the VM, named after `name`. Returns
    /// its path; `None` if there are no logs.
    async fn keep_logs(&self, name: &str, logs: &VmPaths) -> Result<Option<String>, ApiError>;
    /// Its resources.
    fn capacity(&self) -> Capacity;
    /// Chooses drivers for a new VM of this image, each with its reason.
    async fn choose(&self, boot: &BootSet, root: RootContent) -> Result<DriverPlan, ApiError>;
    /// Has the helper create its folder of a VM, which records the owner of the VM for the helper's
    /// checks. Idempotent.
    async fn claim(&self, vm: &VmPlan) -> Result<Applied, ApiError>;
    /// Has the helper remove that folder; safe if it does not exist.
    async fn release(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// The password of a VM's opencode server.
    async fn opencode_password(&self, vm: &VmPlan) -> Result<String, ApiError>;
    /// Checks of the host.
    async fn doctor(&self) -> Vec<Check>;
    /// Ids of all VMs of this daemon's state folder that have objects on the host, also of those
    /// that are not on record; each may also be the name of a foreign folder.
    async fn vm_ids(&self) -> Result<Vec<String>, ApiError>;
    /// The objects of a VM, as one of [`Self::vm_ids`].
    async fn objects(&self, id: &str) -> Result<Leftover, ApiError>;
    /// Removes all objects of a VM that does not run and has no disks. Idempotent.
    async fn remove_objects(&self, vm: &VmId) -> Result<(), ApiError>;
}
