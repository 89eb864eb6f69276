//! Simulated shims and VMMs.

use async_trait::async_trait;
use banger_api::vm::VmPaths;
use banger_api::{ApiError, ErrorCode};
use banger_base::PROGRAM_ENDED;
use tokio::sync::watch;
use tokio::time::Instant;

use super::meter::Launched;
use super::world::World;
use super::{GuestBehavior, Sim};
use crate::devices::{Devices, DriveKey, DriveRole, Need, NicKind, SourceKind, VmmAbilities};
use crate::drivers::{Applied, ExitStory, GuestEnd, Notices, RunFacts, Stray, Undone, Vmm};
use crate::meter::VmmMeter;
use crate::plan::{ProcRef, RunPlan, VmPlan, VmSpec};

/// First process id of simulated processes.
pub(super) const FIRST_PID: u32 = 100_000;

impl Sim {
    fn exit_channel(&self, vm: &VmPlan) -> watch::Sender<Option<ExitStory>> {
        let mut inner = self.inner();
        inner.exits.entry(vm.id.to_string()).or_insert_with(|| watch::channel(None).0).clone()
    }

    /// Resolves when the VMM of a VM has ended.
    pub async fn ended(&self, vm: &VmPlan) -> ExitStory {
        let mut exit = self.exit_channel(vm).subscribe();
        let story = match exit.wait_for(Option::is_some).await {
            Ok(story) => story.clone(),
            Err(_) => None,
        };
        story.unwrap_or_else(|| ExitStory::unknown("the simulated VMM is gone"))
    }

    /// Ends a VM whose program has ended with an exit code.
    pub fn end_program(&self, vm: &VmPlan, code: u8) {
        let console_tail = format!("[    1.0] {PROGRAM_ENDED}{code}\n");
        let story = ExitStory::unknown("the simulated guest powered off");
        self.end_with(vm, ExitStory { guest: Some(GuestEnd::Poweroff), console_tail, ..story });
    }

    /// Ends the VMM of a VM, with the guest's last action if it ended itself.
    pub fn end_vmm(&self, vm: &VmPlan, guest: Option<GuestEnd>, summary: &str) {
        self.end_with(vm, ExitStory { guest, ..ExitStory::unknown(summary) });
    }

    fn end_with(&self, vm: &VmPlan, story: ExitStory) {
        let channel = self.exit_channel(vm);
        let mut inner = self.inner();
        let had_vmm = inner.world.remove("vmm", &vm.id);
        inner.world.remove("shim", &vm.id);
        inner.world.remove("paused", &vm.id);
        (self.sink)(&inner.world, &["vmm", "shim", "paused"].map(|kind| World::key(kind, &vm.id)));
        drop(inner);
        if had_vmm {
            channel.send_replace(Some(story));
        }
    }
}

#[async_trait]
impl Vmm for Sim {
    fn abilities(&self) -> VmmAbilities {
        VmmAbilities {
            root: Need::Required,
            kvm: Need::None,
            nics: &[NicKind::Tap],
            sources: &[SourceKind::File],
            drive_key: DriveKey::Order,
        }
    }

    async fn preflight(&self, _vm: &VmPlan) -> Result<(), ApiError> {
        Ok(())
    }

    async fn prepare(&self, vm: &VmPlan, _devices: &Devices) -> Result<Applied, ApiError> {
        self.make("run", vm)
    }

    async fn clear(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("run", vm)
    }

    async fn spawn(&self, vm: &VmPlan) -> Result<ProcRef, ApiError> {
        let start_time = {
            let mut inner = self.inner();
            inner.world.spawned += 1;
            inner.exits.remove(vm.id.as_str());
            inner.launched.remove(vm.id.as_str());
            inner.world.spawned
        };
        self.make_with("shim", vm, start_time.to_string())?;
        Ok(ProcRef { pid: FIRST_PID, start_time })
    }

    async fn launch(&self, vm: &VmPlan, spec: &VmSpec, devices: &Devices) -> Result<u32, ApiError> {
        if self.object("shim", vm).is_none() {
            return Err(ApiError::new(ErrorCode::VmmDied, "the simulated shim is gone"));
        }
        // Without the network step, the NIC has no address.
        if devices.place(DriveRole::Root).is_none() || devices.nic.address().is_none() {
            return Err(ApiError::new(ErrorCode::Internal, "the simulated VMM lacks a device"));
        }
        self.make("vmm", vm)?;
        let launched = Launched { at: Instant::now(), memory_mib: spec.memory_mib };
        self.inner().launched.insert(vm.id.to_string(), launched);
        Ok(FIRST_PID + 1)
    }

    async fn pause(&self, vm: &VmPlan, _run: &RunPlan) -> Result<(), ApiError> {
        if self.object("vmm", vm).is_none() {
            return Err(ApiError::new(ErrorCode::VmmDied, "the simulated VMM is gone"));
        }
        self.make("paused", vm).map(|_| ())
    }

    async fn resume(&self, vm: &VmPlan, _run: &RunPlan) -> Result<(), ApiError> {
        self.unmake("paused", vm).map(|_| ())
    }

    async fn end(&self, vm: &VmPlan, _run: &RunPlan) -> Result<Undone, ApiError> {
        let shim = self.unmake("shim", vm)?;
        self.end_vmm(vm, None, "the simulated VMM was killed");
        Ok(shim)
    }

    async fn exited(&self, vm: &VmPlan, _run: &RunPlan) -> ExitStory {
        self.ended(vm).await
    }

    async fn stray(&self, vm: &VmPlan) -> Option<Stray> {
        self.object("vmm", vm)?;
        Some(Stray { pid: FIRST_PID + 1, shim: None })
    }

    async fn facts(&self, vm: &VmPlan, run: &RunPlan) -> RunFacts {
        let shim = run.shim.map(|shim| shim.start_time.to_string());
        if self.object("vmm", vm).is_some() && self.object("shim", vm) == shim {
            return RunFacts::Alive { vmm_pid: FIRST_PID + 1 };
        }
        RunFacts::Nothing
    }

    fn paths(&self, vm: &VmPlan) -> VmPaths {
        let folder = self.inner().logs.join(vm.id.as_str());
        let path = |name: &str| folder.join(name).into();
        VmPaths {
            console_log: path("console.log"),
            vmm_log: path("vmm.log"),
            shim_log: path("shim.log"),
        }
    }

    fn notices(&self) -> Option<&dyn Notices> {
        Some(self)
    }

    fn meter(&self) -> Option<&dyn VmmMeter> {
        Some(self)
    }
}

#[async_trait]
impl Notices for Sim {
    async fn of(&self, vm: &VmPlan, _devices: &Devices) -> Vec<String> {
        match self.behavior(vm) {
            GuestBehavior::DiskNearlyFull => vec!["the disk of the host has 1 MiB left".into()],
            GuestBehavior::DiskFull => vec!["the guest is paused: the disk is full".into()],
            _ => Vec::new(),
        }
    }

    fn is_held(&self, vm: &VmPlan) -> bool {
        self.behavior(vm) == GuestBehavior::DiskFull
    }
}
