//! The simulated host: all drivers in memory.
//!
//! Every effect adds or removes one object of the [`world::World`]. A test can make it fail before
//! or after the change. Each change is passed to a sink, so that a simulated host can outlive its
//! daemon.

mod builds;
mod containers;
mod effects;
mod guest;
mod host;
mod image_names;
mod images;
mod meter;
mod stored;
mod unfinished;
mod vmm;
pub mod world;

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::vm::DiskView;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::devices::{
    Drive, DriveRole, Need, NetworkAbilities, Nic, NicKind, RootContent, SourceKind,
    StorageAbilities,
};
use crate::drivers::{
    Applied, Attached, ClockHistory, CrashPoints, Drivers, ExitStory, Network, RootFiles, Storage,
    Undone,
};
use crate::meter::NicMeter;
use crate::plan::{Lease, VmPlan, VmSpec};
use world::{Fault, World};

/// Called after each change with the world and the keys of the changed objects of VMs; without keys
/// for images and kernels.
pub type Sink = Box<dyn Fn(&World, &[String]) + Send + Sync>;
/// Connects to the simulated agent of a VM.
pub type Connect = Box<dyn Fn(&VmPlan) -> Result<OwnedFd, ApiError> + Send + Sync>;

/// The simulated host.
pub struct Sim {
    inner: Mutex<Inner>,
    sink: Sink,
    connect: Connect,
}

struct Inner {
    world: World,
    faults: Vec<Fault>,
    tried: BTreeSet<String>,
    behaviors: BTreeMap<String, GuestBehavior>,
    exits: BTreeMap<String, watch::Sender<Option<ExitStory>>>,
    /// Comparisons of guests' clocks, by the name of the VM.
    compared: Vec<(String, ClockHistory)>,
    began: Instant,
    launched: BTreeMap<String, meter::Launched>,
    random: u64,
    logs: PathBuf,
    /// Unfinished files of operations in progress.
    in_progress: BTreeSet<String>,
}

/// Behavior of a simulated guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestBehavior {
    /// Boots and shuts down.
    Good,
    /// Boots, and ignores a shutdown.
    Stubborn,
    /// Never says hello. A fetch never ends by itself.
    Silent,
    /// Its init never finishes booting.
    NeverBooted,
    /// Powers itself off while its init boots.
    PowersOff,
    /// Boots, and its program ends with this exit code.
    Exits(u8),
    /// As good, but its clock cannot be compared: its agent does not answer.
    Unresponsive,
    /// As good, but a comparison of its clock never ends.
    Hanging,
    /// Boots and shuts down, on a host whose disk is nearly full.
    DiskNearlyFull,
    /// Boots, and is paused because the host's disk is full.
    DiskFull,
}

impl Sim {
    /// A host with these objects.
    pub fn new(world: World, random: u64, sink: Sink, connect: Connect) -> Arc<Self> {
        let inner = Inner {
            world,
            faults: Vec::new(),
            tried: BTreeSet::new(),
            behaviors: BTreeMap::new(),
            exits: BTreeMap::new(),
            compared: Vec::new(),
            began: Instant::now(),
            launched: BTreeMap::new(),
            random,
            logs: "/nonexistent".into(),
            in_progress: BTreeSet::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), sink, connect })
    }

    /// An empty host for a test.
    pub fn empty() -> Arc<Self> {
        let no_agent = |vm: &VmPlan| {
            let text = format!("the simulated guest of `{}` has no agent", vm.name);
            Err(ApiError::new(banger_api::ErrorCode::GuestFailed, text))
        };
        Self::new(World::default(), 1, Box::new(|_, _| ()), Box::new(no_agent))
    }

    /// Sets the folder for logs of VMs. Nothing is written there, except by tests.
    pub fn set_logs(&self, folder: PathBuf) {
        self.inner().logs = folder;
    }

    /// All drivers of this host.
    pub fn drivers(self: &Arc<Self>, crash: CrashPoints) -> Drivers {
        let name = || String::from("sim");
        Drivers {
            host: self.clone(),
            images: self.clone(),
            storage: BTreeMap::from([(name(), self.clone() as Arc<dyn Storage>)]),
            network: BTreeMap::from([(name(), self.clone() as Arc<dyn Network>)]),
            vmm: BTreeMap::from([(name(), self.clone() as Arc<dyn crate::drivers::Vmm>)]),
            guest: self.clone(),
            builds: self.clone(),
            effects: effects::all(self),
            crash,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects on the host.
    pub fn world(&self) -> World {
        self.inner().world.clone()
    }

    /// Value of an object of a VM, without a copy of the world.
    fn object(&self, kind: &str, vm: &VmPlan) -> Option<String> {
        self.inner().world.get(kind, &vm.id).map(str::to_owned)
    }

    /// Makes an effect fail.
    pub fn fail(&self, fault: Fault) {
        self.inner().faults.push(fault);
    }

    /// Names of all attempted effects, as in [`Fault::effect`].
    pub fn tried(&self) -> BTreeSet<String> {
        self.inner().tried.clone()
    }

    /// All comparisons of guests' clocks since the last call, by the name of the VM.
    pub fn take_compared(&self) -> Vec<(String, ClockHistory)> {
        std::mem::take(&mut self.inner().compared)
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.inner().faults.clear();
    }

    /// Sets the behavior of the guest of a VM with this name, or of the fetch of an image or
    /// kernel.
    pub fn set_behavior(&self, name: &str, behavior: GuestBehavior) {
        self.inner().behaviors.insert(name.into(), behavior);
    }

    fn behavior(&self, vm: &VmPlan) -> GuestBehavior {
        self.behavior_of(vm.name.as_str())
    }

    fn behavior_of(&self, name: &str) -> GuestBehavior {
        self.inner().behaviors.get(name).copied().unwrap_or(GuestBehavior::Good)
    }

    /// An effect without an object of a VM: fails if there is a fault for it.
    fn try_effect(&self, effect: &str, when: world::When) -> Result<(), ApiError> {
        let mut inner = self.inner();
        inner.tried.insert(effect.into());
        world::take_fault(&mut inner.faults, effect, when)
    }

    /// Adds an object.
    fn make(&self, kind: &str, vm: &VmPlan) -> Result<Applied, ApiError> {
        self.make_with(kind, vm, String::new())
    }

    fn make_with(&self, kind: &str, vm: &VmPlan, value: String) -> Result<Applied, ApiError> {
        let mut inner = self.inner();
        inner.tried.insert(kind.into());
        world::take_fault(&mut inner.faults, kind, world::When::Before)?;
        let made = inner.world.insert(kind, &vm.id, value);
        (self.sink)(&inner.world, &[World::key(kind, &vm.id)]);
        world::take_fault(&mut inner.faults, kind, world::When::After)?;
        Ok(if made { Applied::Created } else { Applied::AlreadyThere })
    }

    /// Removes an object.
    fn unmake(&self, kind: &str, vm: &VmPlan) -> Result<Undone, ApiError> {
        let mut inner = self.inner();
        let undo = format!("undo {kind}");
        inner.tried.insert(undo.clone());
        world::take_fault(&mut inner.faults, &undo, world::When::Before)?;
        let removed = inner.world.remove(kind, &vm.id);
        (self.sink)(&inner.world, &[World::key(kind, &vm.id)]);
        world::take_fault(&mut inner.faults, &undo, world::When::After)?;
        Ok(if removed { Undone::Removed } else { Undone::WasAbsent })
    }
}

#[async_trait]
impl Storage for Sim {
    async fn create_folder(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        self.make("folder", vm)
    }

    async fn remove_folder(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("folder", vm)
    }

    async fn create_root(&self, vm: &VmPlan, _spec: &VmSpec) -> Result<Applied, ApiError> {
        self.make("root", vm)
    }

    async fn remove_root(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        if self.object("new_root", vm).is_some() {
            self.unmake("new_root", vm)?;
        }
        self.unmake("root", vm)
    }

    async fn create_new_root(&self, vm: &VmPlan, _spec: &VmSpec) -> Result<Applied, ApiError> {
        let number = {
            let mut inner = self.inner();
            inner.world.spawned += 1;
            inner.world.spawned.to_string()
        };
        self.make_with("new_root", vm, number)
    }

    async fn remove_new_root(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("new_root", vm)
    }

    async fn replace_root(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        self.try_effect("replace root", world::When::Before)?;
        let moved = {
            let mut inner = self.inner();
            let new = inner.world.objects.remove(&World::key("new_root", &vm.id));
            let applied = match new {
                Some(new) => {
                    inner.world.insert("root", &vm.id, new);
                    Applied::Created
                }
                None => Applied::AlreadyThere,
            };
            let keys = ["new_root", "root"].map(|kind| World::key(kind, &vm.id));
            (self.sink)(&inner.world, &keys);
            applied
        };
        self.try_effect("replace root", world::When::After)?;
        Ok(moved)
    }

    async fn attach(&self, vm: &VmPlan, _spec: &VmSpec) -> Result<Applied, ApiError> {
        self.make("attach", vm)
    }

    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("attach", vm)
    }

    fn abilities(&self) -> StorageAbilities {
        let (root, root_disk) = (Need::None, SourceKind::File);
        StorageAbilities { root, root_disk, content: RootContent::Whole }
    }

    fn root_files(&self, vm: &VmPlan, _spec: &VmSpec) -> RootFiles {
        RootFiles::Whole { disk: format!("/nonexistent/{}/root", vm.id).into() }
    }

    fn drives(&self, vm: &VmPlan) -> Vec<Drive> {
        let at = |role: DriveRole| {
            Drive::file(role, format!("/nonexistent/{}/{}", vm.id, role.as_str()))
        };
        [DriveRole::Root, DriveRole::Work, DriveRole::Modules].map(at).into()
    }

    async fn usage(&self, _vm: &VmPlan, spec: &VmSpec) -> DiskView {
        DiskView {
            root_bytes: spec.root_bytes,
            root_used_bytes: 4 << 20,
            work_bytes: spec.work_bytes,
            work_used_bytes: 4 << 20,
        }
    }
}

#[async_trait]
impl Network for Sim {
    async fn attach(&self, vm: &VmPlan, _spec: &VmSpec) -> Result<Attached, ApiError> {
        let applied = self.make("network", vm)?;
        // Three digits, so that the width of tables does not depend on an id.
        let host = 100 + (vm.id.bits() % 150) as u8;
        let (address, gateway) = (Ipv4Addr::new(172, 16, 0, host), Ipv4Addr::new(172, 16, 0, 1));
        let lease = Lease { address, prefix: 24, gateway, dns: Vec::new() };
        Ok(Attached { applied, lease: Some(lease) })
    }

    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("network", vm)
    }

    fn abilities(&self) -> NetworkAbilities {
        NetworkAbilities { root: Need::None, nic: NicKind::Tap }
    }

    fn nic(&self, vm: &VmPlan, _spec: &VmSpec, lease: Option<&Lease>) -> Nic {
        Nic::Tap { name: vm.id.tap_name(), mac: vm.id.mac(), lease: lease.cloned() }
    }

    fn counters(&self) -> Option<&dyn NicMeter> {
        Some(self)
    }
}
