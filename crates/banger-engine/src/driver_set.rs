//! The drivers of a host by name, and calls that involve several drivers of a VM.

use std::collections::BTreeMap;
use std::sync::Arc;

use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, Hint};

use crate::capability::{Effect, Effects, Upkeep};
use crate::devices::{Devices, Need};
use crate::drivers::{Applied, Builds, Guest, Host, Images, Network, Storage, Undone, Vmm};
use crate::oplog::StepId;
use crate::plan::{Chosen, Lease, VmPlan, VmSpec};

/// Called with the name of each crash point, before and after every recorded step; tests abort the
/// process there.
pub type CrashPoints = Arc<dyn Fn(&str) + Send + Sync>;

/// All drivers of a host.
#[derive(Clone)]
pub struct Drivers {
    /// The host.
    pub host: Arc<dyn Host>,
    /// Images and kernels.
    pub images: Arc<dyn Images>,
    /// Storage drivers by name.
    pub storage: BTreeMap<String, Arc<dyn Storage>>,
    /// Network drivers by name.
    pub network: BTreeMap<String, Arc<dyn Network>>,
    /// VMM drivers by name.
    pub vmm: BTreeMap<String, Arc<dyn Vmm>>,
    /// The agent.
    pub guest: Arc<dyn Guest>,
    /// Image builds.
    pub builds: Arc<dyn Builds>,
    /// Effects of capabilities.
    pub effects: Vec<Effects>,
    /// Crash points.
    pub crash: CrashPoints,
}

fn named<T: ?Sized>(
    what: &str,
    drivers: &BTreeMap<String, Arc<T>>,
    (vm, chosen): (&VmPlan, &Chosen),
) -> Result<Arc<T>, ApiError> {
    drivers.get(&chosen.name).cloned().ok_or_else(|| {
        let (name, driver) = (&vm.name, &chosen.name);
        let text = format!("`{name}` has the {what} driver `{driver}`, which this daemon lacks");
        ApiError::new(ErrorCode::OtherBuild, text)
            .with_hint(Hint::UseOtherBuild)
            .with_hint(Hint::ask(name, VmAction::Delete { force: true }))
    })
}

impl Drivers {
    /// The storage driver of a VM.
    ///
    /// # Errors
    /// This daemon does not have it.
    pub fn storage(&self, vm: &VmPlan) -> Result<Arc<dyn Storage>, ApiError> {
        named("storage", &self.storage, (vm, &vm.drivers.storage))
    }

    /// The effect of a capability's step.
    ///
    /// # Errors
    /// This daemon does not have it.
    pub fn effect(&self, step: &StepId) -> Result<&Arc<dyn Effect>, ApiError> {
        let mut all = self.effects.iter().flat_map(|effects| &effects.steps);
        all.find(|(id, _)| id == step).map(|(_, effect)| effect).ok_or_else(|| {
            let text = format!("this host has nothing for the step `{}`", step.as_str());
            ApiError::new(ErrorCode::Internal, text)
        })
    }

    /// Maintenance of all shared state.
    pub fn upkeep(&self) -> impl Iterator<Item = &dyn Upkeep> {
        let networks = self.network.values().filter_map(|network| network.upkeep());
        networks.chain(self.effects.iter().filter_map(|effects| effects.upkeep.as_deref()))
    }

    /// The network driver of a VM.
    ///
    /// # Errors
    /// This daemon does not have it.
    pub fn network(&self, vm: &VmPlan) -> Result<Arc<dyn Network>, ApiError> {
        named("network", &self.network, (vm, &vm.drivers.network))
    }

    /// The devices of a VM in a run of this specification.
    ///
    /// # Errors
    /// This daemon lacks a driver of the VM.
    pub fn devices(
        &self,
        vm: &VmPlan,
        spec: &VmSpec,
        lease: Option<&Lease>,
    ) -> Result<Devices, ApiError> {
        let takes = self.vmm(vm)?.abilities();
        let devices = Devices {
            drives: self.storage(vm)?.drives(vm),
            drive_key: takes.drive_key,
            nic: self.network(vm)?.nic(vm, spec, lease),
        };
        let refused = |what: &str| {
            let text = format!("the VMM of `{}` takes no {what}", vm.name);
            ApiError::new(ErrorCode::OtherBuild, text)
                .with_hint(Hint::UseOtherBuild)
                .with_hint(Hint::ask(&vm.name, VmAction::Delete { force: true }))
        };
        if !takes.nics.contains(&devices.nic.kind()) {
            return Err(refused("network interface of this kind"));
        }
        if !devices.drives.iter().all(|drive| takes.sources.contains(&drive.source.kind())) {
            return Err(refused("drives of this kind"));
        }
        Ok(devices)
    }

    /// Whether a driver of a VM needs root.
    fn root(&self, vm: &VmPlan) -> Result<Need, ApiError> {
        let needs = [
            self.vmm(vm).map(|driver| driver.abilities().root),
            self.storage(vm).map(|driver| driver.abilities().root),
            self.network(vm).map(|driver| driver.abilities().root),
        ];
        if needs.iter().any(|need| matches!(need, Ok(Need::Required))) {
            return Ok(Need::Required);
        }
        // An unknown driver matters only if no known one needs root.
        needs.into_iter().find_map(Result::err).map_or(Ok(Need::None), Err)
    }

    /// Has the helper create its folder of a VM, if a driver of the VM needs root.
    ///
    /// # Errors
    /// This daemon lacks a driver of the VM, or the helper fails.
    pub async fn claim(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        match self.root(vm)? {
            Need::Required => self.host.claim(vm).await,
            Need::None => Ok(Applied::AlreadyThere),
        }
    }

    /// Has the helper remove that folder.
    ///
    /// # Errors
    /// This daemon lacks a driver of the VM, or the helper fails.
    pub async fn release(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        match self.root(vm)? {
            Need::Required => self.host.release(vm).await,
            Need::None => Ok(Undone::WasAbsent),
        }
    }

    /// The VMM driver of a VM.
    ///
    /// # Errors
    /// This daemon does not have it.
    pub fn vmm(&self, vm: &VmPlan) -> Result<Arc<dyn Vmm>, ApiError> {
        named("VMM", &self.vmm, (vm, &vm.drivers.vmm))
    }
}
