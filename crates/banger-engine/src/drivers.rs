//! The drivers: what the engine wants done to a host, in small traits.
//!
//! Every `apply`-like call is safe to repeat, every undo is safe when nothing was ever done, and
//! both say what they did. None of them is dropped half-way: long waits take an [`Interrupt`] and
//! end by themselves when it is raised. Errors are [`ApiError`]s, ready to be shown.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::driver_set::{CrashPoints, Drivers};
use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::boot::BootView;
use banger_api::doctor::Check;
use banger_api::images::{Deleted, ImageView, KernelView};
use banger_api::vm::{DiskView, Timing, VmPaths};
pub use banger_base::{ExitStory, GuestEnd, RunFacts};

use crate::capability::Upkeep;
use crate::devices::{Devices, Drive, NetworkAbilities, Nic, StorageAbilities, VmmAbilities};
use crate::interrupt::Interrupt;
use crate::plan::{BootSet, DriverPlan, Lease, ProcRef, RunPlan, VmPlan, VmSpec};

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It made the thing.
    Created,
    /// The thing was there.
    AlreadyThere,
}

/// What an undo did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// It removed the thing.
    Removed,
    /// There was nothing.
    WasAbsent,
}

/// Disks.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Makes the VM's folder.
    async fn create_folder(&self, vm: &VmPlan) -> Result<Applied, ApiError>;
    /// Removes the VM's folder and what else is in it.
    async fn remove_folder(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Makes the root disk, or its private layer.
    async fn create_root(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError>;
    /// Removes it.
    async fn remove_root(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Makes the disks usable for a VMM.
    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError>;
    /// Gives up what attach made.
    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// What it needs and yields.
    fn abilities(&self) -> StorageAbilities;
    /// The drives of a VM whose disks are attached, in the order in which the guest sees them.
    fn drives(&self, vm: &VmPlan) -> Vec<Drive>;
    /// Bytes asked for and bytes really used.
    async fn usage(&self, vm: &VmPlan, spec: &VmSpec) -> DiskView;
}

/// A VM on its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What it took.
    pub applied: Applied,
    /// What the guest was given, where others can reach it.
    pub lease: Option<Lease>,
}

/// Network of a VM.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes what the VMM will connect to.
    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Attached, ApiError>;
    /// Removes it.
    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// What it needs and yields.
    fn abilities(&self) -> NetworkAbilities;
    /// The network interface of a VM that is attached; `lease` is what attach gave.
    fn nic(&self, vm: &VmPlan, spec: &VmSpec, lease: Option<&Lease>) -> Nic;
    /// Looks after what all VMs on it share, where there is such a thing.
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        None
    }
}

/// A VMM that lives although no run of its VM is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// Process id of the VMM or its companion.
    pub pid: u32,
    /// Its shim, where known.
    pub shim: Option<ProcRef>,
}

/// A virtual machine monitor, its companion and the shim that owns both.
#[async_trait]
pub trait Vmm: Send + Sync {
    /// What it needs and takes.
    fn abilities(&self) -> VmmAbilities;
    /// Checks what a start needs, changing nothing.
    async fn preflight(&self, vm: &VmPlan) -> Result<(), ApiError>;
    /// Makes the run folder and listens for the guest's hello in it.
    async fn prepare(&self, vm: &VmPlan, devices: &Devices) -> Result<Applied, ApiError>;
    /// Removes the run folder with every socket in it.
    async fn clear(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// Starts the shim; it waits at its gate.
    async fn spawn(&self, vm: &VmPlan) -> Result<ProcRef, ApiError>;
    /// Opens the gate; returns the VMM's process id once shim, companion and VMM are up.
    async fn launch(&self, vm: &VmPlan, spec: &VmSpec, devices: &Devices) -> Result<u32, ApiError>;
    /// Ends shim, companion and VMM, whatever of them there is, and waits until they are gone.
    async fn end(&self, vm: &VmPlan, run: &RunPlan) -> Result<Undone, ApiError>;
    /// Resolves when the VMM has ended, with its story.
    async fn exited(&self, vm: &VmPlan, run: &RunPlan) -> ExitStory;
    /// What lives of a VM that has no run on record: its disks must not be used twice.
    async fn stray(&self, vm: &VmPlan) -> Option<Stray>;
    /// What is there of a run that another daemon started.
    async fn facts(&self, vm: &VmPlan, run: &RunPlan) -> RunFacts;
    /// Logs of the VM.
    fn paths(&self, vm: &VmPlan) -> VmPaths;
    /// A way to ask the guest's kernel for a shutdown, where there is one.
    fn power_button(&self) -> Option<&dyn PowerButton> {
        None
    }
    /// What it has to tell about a run, where it has anything.
    fn notices(&self) -> Option<&dyn Notices> {
        None
    }
}

/// Asks the guest's kernel to shut down where its agent does not answer.
#[async_trait]
pub trait PowerButton: Send + Sync {
    /// Presses it.
    async fn press(&self, vm: &VmPlan) -> Result<(), ApiError>;
}

/// Tells what a user should know of a run.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Why the guest is held, or that its disks are about to find no room. Each a sentence without
    /// a full stop. `devices` are those that the run began with.
    async fn of(&self, vm: &VmPlan, devices: &Devices) -> Vec<String>;
}

/// The guest reported ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReady {
    /// What it spent its time on.
    pub timeline: Vec<Timing>,
    /// What went wrong without stopping it.
    pub warnings: Vec<String>,
}

/// The agent answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestHealth {
    /// Boot id of the guest.
    pub boot_id: String,
    /// Milliseconds since its kernel started.
    pub uptime_ms: u64,
    /// Time the answer took, in microseconds.
    pub round_trip_us: u64,
    /// How many agents of this run ended before the guest did, and were started again.
    pub agent_restarts: u32,
}

/// What a comparison of clocks came to.
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
        devices: &Devices,
        interrupt: &Interrupt,
    ) -> Result<String, ApiError>;
    /// Waits for the agent's first answer and checks that it comes from this boot.
    async fn agent(&self, vm: &VmPlan, boot_id: &str, i: &Interrupt) -> Result<(), ApiError>;
    /// Waits for ready.
    async fn ready(&self, vm: &VmPlan, interrupt: &Interrupt) -> Result<GuestReady, ApiError>;
    /// Lets go of what the three calls above keep for a run.
    async fn forget(&self, vm: &VmPlan);
    /// Asks the agent once.
    async fn health(&self, vm: &VmPlan) -> Result<GuestHealth, ApiError>;
    /// How far the guest's init has booted: answers once that is over, or after `wait`.
    async fn boot_progress(&self, vm: &VmPlan, wait: Duration) -> Result<BootView, ApiError>;
    /// Asks the guest to power off, which has `grace` for it until the VMM is ended; returns when
    /// it has understood.
    async fn power_off(&self, vm: &VmPlan, grace: Duration) -> Result<(), ApiError>;
    /// Compares the guest's wall clock with the host's, and has the agent correct it.
    async fn correct_clock(&self, vm: &VmPlan) -> Result<GuestClock, ApiError>;
    /// A connected stream socket to the agent's HTTP, handshake done.
    async fn connect(&self, vm: &VmPlan) -> Result<OwnedFd, ApiError>;
}

/// Hears how far a long fetch has come.
pub trait Progress: Send + Sync {
    /// A stage began.
    fn stage(&self, name: &str);
    /// Bytes moved.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// Things done that are not bytes; `unit` says what they are: `packages unpacked`.
    fn items(&self, unit: &str, done: u64, total: Option<u64>);
    /// A line worth showing.
    fn note(&self, text: &str);
    /// Something that did not end the work.
    fn warning(&self, text: &str);
    /// Whether somebody asked for the end.
    fn cancelled(&self) -> bool;
}

/// Whether an image of the same recipe is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// Only if there is none, or the recipe has changed.
    IfOutdated,
    /// Always.
    Always,
}

/// What happens when another image has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenName {
    /// The work is refused.
    Refuse,
    /// The name moves.
    Replace,
}

impl TakenName {
    /// As a request says it.
    pub fn replacing(replace: bool) -> Self {
        if replace { Self::Replace } else { Self::Refuse }
    }
}

/// An archive to make an image of.
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// Where it came from, in words: the path, or `standard input`.
    pub origin: String,
    /// Removes the file when dropped, where it is temporary.
    pub temporary: Option<Box<dyn Send + Sync>>,
}

/// Images and kernels.
#[async_trait]
pub trait Images: Send + Sync {
    /// Whether `image` and `kernel` are here, or could be fetched.
    fn check(&self, image: &str, kernel: &str) -> Result<(), ApiError>;
    /// Image and kernel of these names, fetched first where they are not here.
    async fn boot_set(
        &self,
        image: &str,
        kernel: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<BootSet, ApiError>;
    /// Makes an image by a built-in recipe; returns its id.
    async fn pull_image(
        &self,
        name: &str,
        rebuild: Rebuild,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// Makes an image of an archive; returns its id.
    async fn import_image(
        &self,
        archive: &Archive,
        name: &str,
        taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// A new file for an archive that comes in pieces.
    fn upload(&self) -> Result<Archive, ApiError>;
    /// Points a name to an image, away from the one that had it.
    async fn tag_image(&self, image: &ImageView, name: &str) -> Result<(), ApiError>;
    /// Removes a name of an image that has others.
    async fn untag_image(&self, name: &str) -> Result<(), ApiError>;
    /// Removes what daemons that were killed left unfinished, and nothing that is being made;
    /// returns the bytes that it freed.
    async fn clean(&self) -> Result<u64, ApiError>;
    /// Fetches a kernel; returns its id.
    async fn pull_kernel(&self, name: &str, p: Arc<dyn Progress>) -> Result<String, ApiError>;
    /// All images; `used_by` is left empty.
    async fn images(&self) -> Result<Vec<ImageView>, ApiError>;
    /// All kernels; `used_by` is left empty.
    async fn kernels(&self) -> Result<Vec<KernelView>, ApiError>;
    /// Removes an image that no VM uses, with all its names.
    async fn delete_image(&self, image: &ImageView) -> Result<Deleted, ApiError>;
    /// Removes a kernel that no VM uses.
    async fn delete_kernel(&self, kernel: &KernelView) -> Result<Deleted, ApiError>;
}

/// What a host has.
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
    /// its path; none where there is nothing to keep.
    async fn keep_logs(&self, name: &str, logs: &VmPaths) -> Result<Option<String>, ApiError>;
    /// What it has.
    fn capacity(&self) -> Capacity;
    /// Drivers for a new VM of this image, each with its reason.
    async fn choose(&self, boot: &BootSet) -> Result<DriverPlan, ApiError>;
    /// Has root make its folder of a VM: what root does for a VM it does for the user who made
    /// that. Safe to repeat.
    async fn claim(&self, vm: &VmPlan) -> Result<Applied, ApiError>;
    /// Has root remove that folder; safe when there is none.
    async fn release(&self, vm: &VmPlan) -> Result<Undone, ApiError>;
    /// What it has and lacks.
    async fn doctor(&self) -> Vec<Check>;
}
