//! The host itself: clock, entropy, capacity, the choice of drivers, and `doctor`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use banger_api::doctor::{Check, Leftover};
use banger_api::vm::VmPaths;
use banger_api::{ApiError, ErrorCode, Hint, VmId};
use banger_engine::capability::Effects;
use banger_engine::choose::{Candidate, Offers, VmmCandidate, Wanted};
use banger_engine::devices::{NetworkAbilities, RootContent, StorageAbilities};
use banger_engine::drivers::{Applied, Capacity, Host, Undone};
use banger_engine::plan::{BootSet, DriverPlan, VmPlan};
use banger_root::protocol::Request;

use crate::capabilities::opencode;
use crate::probe::{self, Kvm};
use crate::vmm::{firecracker, qemu};
use crate::{HostConfig, KvmCheck};
use crate::{kept_logs, leftovers, network, storage};
use banger_image::fetch::Tools;
use banger_image::images::ImageStore;

/// This host.
pub struct LinuxHost {
    config: HostConfig,
    effects: Vec<Effects>,
}

/// Programs that QEMU VMs need: how each is found, and which Debian package has it.
pub struct Programs {
    /// QEMU.
    pub qemu: Option<PathBuf>,
    /// Its companion.
    pub vhost_device_vsock: Option<PathBuf>,
    /// Makes blank disks.
    pub mke2fs: Option<PathBuf>,
}

impl LinuxHost {
    /// The host as this configuration sees it.
    pub fn new(config: HostConfig, effects: Vec<Effects>) -> Self {
        Self { config, effects }
    }

    async fn vmm_candidates(&self) -> Vec<VmmCandidate> {
        let programs = self.config.programs();
        let kvm = |kvm| match kvm {
            Kvm::Usable => Ok(()),
            Kvm::Unusable(why) => Err(why),
        };
        let jailed = kvm(self.config.kvm());
        let firecracker = match &jailed {
            Err(why) => Err(format!("KVM does not work here: {why}")),
            Ok(()) => match self.config.helper.ask(Request::Ready, Vec::new()).await {
                Ok(_) => self
                    .limits()
                    .map(|()| "KVM works, and Firecracker and its jailer are installed".into()),
                Err(error) => Err(error.message),
            },
        };
        let own = kvm(self.config.kvm_for_qemu());
        let qemu = match (&programs.qemu, &programs.vhost_device_vsock) {
            (Some(_), Some(_)) if own.is_ok() => Ok("QEMU's microvm machine works with KVM".into()),
            (Some(_), Some(_)) => Ok("QEMU's microvm machine works without KVM".into()),
            (None, _) => Err("qemu-system-x86_64 is not installed".into()),
            (_, None) => Err("vhost-device-vsock is not installed".into()),
        };
        let vmm = |name, abilities, verdict, kvm| VmmCandidate {
            driver: Candidate { name, abilities, verdict },
            kvm,
        };
        vec![
            vmm("firecracker", firecracker::config::ABILITIES, firecracker, jailed),
            vmm("qemu", qemu::ABILITIES, qemu, own),
        ]
    }

    /// Whether Firecracker's processes can be limited.
    fn limits(&self) -> Result<(), String> {
        match self.config.kvm_check {
            KvmCheck::Probe => banger_root::jail::check_cgroups(&self.config.places).map(drop),
            KvmCheck::Assume => Ok(()),
        }
    }

    async fn storage_candidates(&self, boot: Option<&BootSet>) -> Vec<Candidate<StorageAbilities>> {
        let mapper = match self.config.helper.ask(Request::SnapshotReady, Vec::new()).await {
            Ok(_) => Ok("device-mapper shares the image and copies nothing".into()),
            Err(error) => Err(error.line()),
        };
        let layout = &self.config.layout;
        let reflink = storage::reflinks(&layout.images(), &layout.vms())
            .map(|()| "the file system shares the image's blocks".into());
        let storage = |name, abilities, verdict| Candidate { name, abilities, verdict };
        vec![
            storage("dm-snapshot", storage::SNAPSHOT, mapper),
            storage("reflink", storage::COPIES, reflink),
            storage(
                "overlay",
                storage::LAYERS,
                boot.map_or_else(|| overlay(Ok(())), |boot| overlay(self.shows_whole(boot))),
            ),
            storage("copy", storage::COPIES, Ok("works everywhere".into())),
        ]
    }

    fn network_candidates() -> Vec<Candidate<NetworkAbilities>> {
        let network = |name, abilities, good: &str| Candidate {
            name,
            abilities,
            verdict: Ok(good.to_owned()),
        };
        vec![
            network("bridge", network::BRIDGE, "each VM has an address of its own"),
            network("user", network::USER, "QEMU's own network needs no privilege"),
        ]
    }

    /// Whether an overlay shows this image as it is.
    fn shows_whole(&self, boot: &BootSet) -> Result<(), String> {
        let images =
            ImageStore::new(self.config.layout.images(), Tools::new(&self.config.search_path));
        // An image that cannot be read is reported by the step that needs it.
        let record = images.resolve(boot.image.as_str()).map(|image| image.record);
        record.map_or(Ok(()), |record| record.check_overlay())
    }

    /// What this host offers, for VMs of an image or in general.
    async fn offers(&self, boot: Option<&BootSet>) -> Offers {
        let root = self.config.helper.ask(Request::Hello, Vec::new()).await;
        Offers {
            root: root.map(|_| ()).map_err(|error| error.message),
            vmms: self.vmm_candidates().await,
            storage: self.storage_candidates(boot).await,
            networks: Self::network_candidates(),
        }
    }

    fn wanted(&self, root: RootContent) -> Wanted<'_> {
        Wanted {
            root,
            vmm: self.config.vmm.as_deref(),
            storage: self.config.storage.as_deref(),
            network: self.config.network.as_deref(),
        }
    }

    async fn decide(&self, boot: &BootSet, root: RootContent) -> Result<DriverPlan, ApiError> {
        self.offers(Some(boot)).await.choose(self.wanted(root)).map_err(|none| {
            ApiError::new(ErrorCode::HostNotReady, none.to_string()).with_hint(Hint::CheckHost)
        })
    }
}

fn overlay(shows_whole: Result<(), String>) -> Result<String, String> {
    shows_whole.map(|()| "needs no privilege and copies nothing".into())
}

#[async_trait]
impl Host for LinuxHost {
    fn now_unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    fn entropy(&self) -> u64 {
        // The kernel's generator cannot fail once it is seeded, and a daemon starts after that.
        getrandom::u64().unwrap_or_else(|_| self.now_unix_ms())
    }

    fn boot_id(&self) -> String {
        probe::boot_id()
    }

    async fn keep_logs(&self, name: &str, logs: &VmPaths) -> Result<Option<String>, ApiError> {
        let folder = self.config.layout.failed_starts();
        let (name, logs) = (name.to_owned(), logs.clone());
        let kept = tokio::task::spawn_blocking(move || kept_logs::keep(&folder, &name, &logs));
        let failed = |error: &dyn std::error::Error| {
            ApiError::new(ErrorCode::Internal, "the logs of the VM cannot be kept").caused_by(error)
        };
        let kept = kept.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(kept.map(|path| path.display().to_string()))
    }

    fn capacity(&self) -> Capacity {
        Capacity {
            cpus: probe::cpus(),
            memory_bytes: probe::memory_bytes(),
            disk_free_bytes: probe::free_bytes(&self.config.layout.state).unwrap_or_default(),
        }
    }

    async fn choose(&self, boot: &BootSet, root: RootContent) -> Result<DriverPlan, ApiError> {
        self.decide(boot, root).await
    }

    async fn claim(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        let helper = &self.config.helper;
        let made = helper.make(Request::Make { vm: vm.id.clone() }, Vec::new()).await?;
        let home = leftovers::home(&self.config.layout);
        match helper.make(Request::SetHome { vm: vm.id.clone(), home }, Vec::new()).await {
            Ok(_) => Ok(made),
            // A helper of an earlier version: leftovers of this VM are not found later.
            Err(error) if error.code == ErrorCode::BadRequest => Ok(made),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.config.helper.remove(Request::Remove { vm: vm.id.clone() }).await
    }

    async fn opencode_password(&self, vm: &VmPlan) -> Result<String, ApiError> {
        opencode::password(&self.config.layout.opencode_password(&vm.id)).await
    }

    async fn doctor(&self) -> Vec<Check> {
        let vmm = self.offers(None).await.preferred(self.wanted(RootContent::Changes));
        let mut checks = crate::doctor::checks(&self.config, vmm).await;
        for doctor in self.effects.iter().filter_map(|effects| effects.doctor.as_ref()) {
            checks.extend(doctor.checks().await);
        }
        checks
    }

    async fn vm_ids(&self) -> Result<Vec<String>, ApiError> {
        leftovers::vm_ids(&self.config).await
    }

    async fn objects(&self, id: &str) -> Result<Leftover, ApiError> {
        leftovers::objects(&self.config, id).await
    }

    async fn remove_objects(&self, vm: &VmId) -> Result<(), ApiError> {
        leftovers::remove(&self.config, vm).await
    }
}
