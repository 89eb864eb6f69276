//! Does: everything that touches the host. Drivers for the engine's traits.

mod advice;
mod available;
mod builds;
pub mod capabilities;
mod doctor;
mod failure;
mod gate;
pub mod guest;
pub mod handover;
pub mod helper;
pub mod host;
mod image_views;
mod images_driver;
mod kept_logs;
pub mod layout;
pub mod leftovers;
pub mod lingering;
pub mod network;
pub mod probe;
mod registration;
mod relay;
pub mod scopes;
pub mod storage;
mod stored_files;
#[cfg(test)]
mod testing;
mod tsc;
mod vm_kernels;
pub mod vmm;
mod vmm_access;
pub mod work_seeds;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use banger_api::ApiError;
use banger_engine::capability::Effects;
use banger_engine::drivers::{CrashPoints, Drivers, Network, Storage, Vmm};
use banger_engine::plan::VmPlan;
use banger_image::Privilege;

use layout::Layout;

/// What the daemon knows when it opens the host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Where everything is.
    pub layout: Layout,
    /// The shim.
    pub shim: PathBuf,
    /// What forwards published ports.
    pub forward: PathBuf,
    /// The static guest agent.
    pub agent: PathBuf,
    /// QEMU, where it is configured; otherwise it is looked for.
    pub qemu_bin: Option<PathBuf>,
    /// Its companion, likewise.
    pub vhost_device_vsock_bin: Option<PathBuf>,
    /// Folders to look in for programs beside [`Self::search_path`]: where bangerd is.
    pub beside: PathBuf,
    /// The value of `PATH`, with the system's own folders added.
    pub search_path: OsString,
    /// Configured ssh key of the user.
    pub ssh_key: Option<PathBuf>,
    /// Configured VMM.
    pub vmm: Option<String>,
    /// Configured storage driver.
    pub storage: Option<String>,
    /// Configured network driver.
    pub network: Option<String>,
    /// How long a guest may take to say hello and to be ready.
    pub boot_timeout: Duration,
    /// Whether the daemon is root, so that each VM gets a uid of its own.
    pub privilege: Privilege,
    /// The way to root.
    pub helper: helper::Helper,
    /// Where root keeps things.
    pub places: banger_root::Places,
    /// Port of the daemon's resolver on the host's loopback; 0 while there is none.
    pub dns_port: Arc<AtomicU16>,
    /// Whether KVM is looked for.
    pub kvm_check: KvmCheck,
    /// Where archives become images.
    pub conversion: banger_image::images::worker::Conversion,
    /// `[proxy]`, for guests and for programs of this host that download.
    pub proxy: banger_image::proxy::ProxySettings,
    /// `[ca]`, likewise.
    pub ca: banger_image::ca::CaSettings,
    /// `[trust]`: catalogs and signatures.
    pub trust: banger_image::trust::TrustSettings,
    /// What the user hands over to guests.
    pub handover: handover::HandoverSettings,
}

/// Whether the host is checked for what Firecracker needs of it: KVM and cgroup v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmCheck {
    /// As it should be.
    Probe,
    /// For tests, whose Firecracker is a fake: it is taken to work.
    Assume,
}

impl HostConfig {
    fn find(&self, configured: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
        match configured {
            Some(path) => probe::find_program(path, &self.search_path),
            None => probe::find_program(&self.beside.join(name), "")
                .or_else(|| probe::find_program(name.as_ref(), &self.search_path)),
        }
    }

    /// Programs that VMs need, looked for now.
    pub fn programs(&self) -> host::Programs {
        host::Programs {
            qemu: self.find(self.qemu_bin.as_ref(), "qemu-system-x86_64"),
            vhost_device_vsock: self
                .find(self.vhost_device_vsock_bin.as_ref(), "vhost-device-vsock"),
            mke2fs: self.find(None, "mke2fs"),
        }
    }

    /// Whether KVM works for a VMM that root puts into its jail, and if not why.
    pub fn kvm(&self) -> probe::Kvm {
        match self.kvm_check {
            KvmCheck::Probe => probe::kvm_for_root(),
            KvmCheck::Assume => probe::Kvm::Usable,
        }
    }

    /// Whether KVM works for QEMU, which is a child of the daemon, and if not why.
    pub fn kvm_for_qemu(&self) -> probe::Kvm {
        match self.privilege {
            Privilege::Root => probe::kvm_for_child(),
            Privilege::User => probe::kvm(),
        }
    }

    /// The uid that a VM's processes run as, where it is not the daemon's.
    pub fn runs_as(&self, vm: &VmPlan) -> Option<u32> {
        match self.privilege {
            Privilege::Root => Some(vm.id.uid()),
            Privilege::User => None,
        }
    }
}

/// All drivers of this host.
///
/// # Errors
/// A folder that cannot be made.
pub fn open(config: HostConfig, crash: CrashPoints) -> Result<Drivers, ApiError> {
    let layout = config.layout.clone();
    for folder in [layout.vms(), layout.cache.clone(), layout.data.clone()] {
        storage::make_folder(&folder)?;
    }
    let images = Arc::new(images_driver::LocalImages::open(&config));
    let listeners = guest::Listeners::default();
    let find = images.clone();
    let boot_files: vmm::FindBootFiles = Arc::new(move |vm| find.boot_files(vm));
    let find = images.clone();
    let image: storage::FindDisk = Arc::new(move |vm| find.image_root(vm));
    let find = images.clone();
    let modules: storage::FindDisk = Arc::new(move |vm| find.modules_disk(vm));
    let shared = storage::Shared { image, modules };
    let blanks = storage::Blanks::new(layout.blank_disks(), config.programs().mke2fs);
    let file_storage = |from| {
        let (shared, blanks) = (shared.clone(), blanks.clone());
        let storage = storage::FileStorage::new(layout.clone(), from, shared, blanks);
        Arc::new(storage) as Arc<dyn Storage>
    };
    let storage = BTreeMap::from([
        ("overlay".into(), file_storage(storage::RootFrom::Layer)),
        ("copy".into(), file_storage(storage::RootFrom::Copy)),
        ("reflink".into(), file_storage(storage::RootFrom::Clone)),
        ("dm-snapshot".into(), {
            let root: Arc<dyn storage::SnapshotRoot> = Arc::new(config.helper.clone());
            file_storage(storage::RootFrom::Snapshot(root))
        }),
    ]);
    let bridge = network::Bridge::new(config.helper.clone());
    let network: BTreeMap<String, Arc<dyn Network>> = BTreeMap::from([
        ("bridge".into(), Arc::new(bridge) as Arc<dyn Network>),
        ("user".into(), Arc::new(network::UserNetwork)),
    ]);
    let (vmm, sockets) = vmms(&config, &listeners, &boot_files);
    let timeout = config.boot_timeout;
    let capabilities = capabilities::registry(&capabilities::Parts {
        layout: layout.clone(),
        blanks,
        seeds: work_seeds::find(images.store()),
        mke2fs: config.programs().mke2fs,
        helper: config.helper.clone(),
        dns_port: config.dns_port.clone(),
        forward: config.forward.clone(),
        proxy: config.proxy.clone(),
        ca: config.ca.clone(),
        ssh_key: config.ssh_key.clone(),
        scopes: scopes::Scopes::new(&config.search_path),
        handover: config.handover.clone(),
        sockets: sockets.clone(),
        boot_timeout: timeout,
    });
    let parts = capabilities.iter().filter_map(|capability| capability.guest.clone()).collect();
    let guest = Arc::new(guest::VsockGuest::new(listeners, timeout, sockets, parts));
    let builds = builds::HostBuilds::new(layout, images.store(), guest.clone());
    let builds = Arc::new(builds);
    let effects: Vec<Effects> = capabilities.into_iter().map(|one| one.effects).collect();
    let host = Arc::new(host::LinuxHost::new(config, effects.clone()));
    Ok(Drivers { host, images, storage, network, vmm, guest, builds, effects, crash })
}

type Vmms = BTreeMap<String, Arc<dyn Vmm>>;

fn vmms(
    config: &HostConfig,
    listeners: &guest::Listeners,
    boot_files: &vmm::FindBootFiles,
) -> (Vmms, guest::SocketsByDriver) {
    let qemu = Arc::new(vmm::Qemu::new(config.clone(), listeners.clone(), boot_files.clone()));
    let firecracker = Arc::new(vmm::firecracker::Firecracker::new(
        config.clone(),
        config.helper.clone(),
        config.places.clone(),
        listeners.clone(),
        boot_files.clone(),
    ));
    let vmm = BTreeMap::from([
        ("qemu".into(), qemu.clone() as Arc<dyn Vmm>),
        ("firecracker".into(), firecracker.clone() as Arc<dyn Vmm>),
    ]);
    let sockets = BTreeMap::from([
        ("qemu".into(), qemu as Arc<dyn guest::VmmSockets>),
        ("firecracker".into(), firecracker as Arc<dyn guest::VmmSockets>),
    ]);
    (vmm, sockets)
}
