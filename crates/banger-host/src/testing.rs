//! A VM for unit tests.

use std::path::{Path, PathBuf};

use banger_agent_proto::boot::{DiskRef, GuestConfig, RootConfig};
use banger_engine::devices::{Devices, Drive, DriveKey, DriveRole, Lease, Nic};
use banger_engine::drivers::Network;
use banger_engine::plan::{BootSet, Chosen, DriverPlan, VmPlan, VmSpec};

use crate::capabilities::Parts;
use crate::helper::Helper;
use crate::layout::Layout;
use crate::network::UserNetwork;
use crate::storage::Blanks;

/// A plan with this id and name.
pub fn plan(id: &str, name: &str) -> VmPlan {
    let chosen = |name: &str| Chosen { name: name.into(), why: "a test".into() };
    VmPlan {
        id: id.parse().unwrap(),
        name: name.parse().unwrap(),
        boot: BootSet {
            image: "0123456789abcdef".parse().unwrap(),
            image_name: "debian".into(),
            image_bytes: 1 << 20,
            kernel: "fedcba9876543210".parse().unwrap(),
            opencode: false,
        },
        drivers: DriverPlan {
            vmm: chosen("qemu"),
            storage: chosen("overlay"),
            network: chosen("user"),
        },
        lifetime: banger_api::vm::Lifetime::Keep,
        machine_id: "0".repeat(32),
        created_unix_ms: 0,
        program: None,
        agent_login: None,
        build: None,
    }
}

/// What that VM is made of.
pub fn spec() -> VmSpec {
    VmSpec {
        vcpus: 1,
        memory_mib: 512,
        root_bytes: 64 << 20,
        work_bytes: 64 << 20,
        nat: true,
        publish: Vec::new(),
        autostart: false,
        labels: Default::default(),
        sync: Vec::new(),
    }
}

/// A VM on QEMU's user network, with its disks in files.
pub fn devices(vm: &VmPlan, spec: &VmSpec) -> Devices {
    let file = |role: DriveRole| Drive::file(role, format!("/disks/{}.ext4", role.as_str()));
    Devices {
        drives: [DriveRole::Root, DriveRole::Work, DriveRole::Modules].map(file).into(),
        drive_key: DriveKey::Serial,
        nic: UserNetwork.nic(vm, spec, None),
    }
}

/// A NIC on the bridge.
pub fn tap(vm: &VmPlan) -> Nic {
    let lease = Lease {
        address: [172, 16, 0, 7].into(),
        prefix: 24,
        gateway: [172, 16, 0, 1].into(),
        dns: Vec::new(),
    };
    Nic::Tap { name: vm.id.tap_name(), mac: vm.id.mac(), lease: Some(lease) }
}

/// A guest's configuration before any capability adds its part.
pub fn empty_config() -> GuestConfig {
    GuestConfig {
        protocol: banger_agent_proto::PROTOCOL_MAX,
        hostname: "web".into(),
        machine_id: "0".repeat(32),
        root: RootConfig { disk: DiskRef::Index(0), layer: None },
        work: None,
        modules: None,
        network: None,
        files: Vec::new(),
        certificates: Vec::new(),
        env: Default::default(),
        clock_unix_ms: 0,
        entropy: String::new(),
        program: None,
    }
}

/// Parts of the capabilities of a host without settings, with its files below this folder.
pub fn parts(path: &Path) -> Parts {
    let layout = Layout { state: path.into(), data: path.into(), cache: path.into() };
    Parts {
        blanks: Blanks::new(layout.blank_disks(), None),
        seeds: std::sync::Arc::new(|_| None),
        layout,
        mke2fs: None,
        helper: Helper::Socket(path.join("socket")),
        dns_port: Default::default(),
        forward: PathBuf::new(),
        proxy: Default::default(),
        scopes: crate::scopes::Scopes::new("".as_ref()),
        ca: Default::default(),
        ssh_key: None,
        handover: Default::default(),
        sockets: Default::default(),
        boot_timeout: std::time::Duration::from_secs(120),
    }
}
