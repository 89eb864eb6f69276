//! Plans: every choice about a VM and about one of its runs, made before the first effect.
//!
//! Names of host objects derive from the VM's id, so undoing needs nothing but the plan, and an
//! orphan on the host can be traced to its VM.

use banger_api::publish::PortForward;
use banger_api::vm::Lifetime;
use banger_api::{ImageId, KernelId, OpId, VmId, VmName};
pub use banger_base::{Lease, ProcRef};
use serde::{Deserialize, Serialize};

/// A driver and the reason it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Name of the driver.
    pub name: String,
    /// Why, in one sentence.
    pub why: String,
}

/// The drivers of a VM; they stay for its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverPlan {
    /// Which VMM.
    pub vmm: Chosen,
    /// Which storage.
    pub storage: Chosen,
    /// Which network.
    pub network: Chosen,
}

/// The image and kernel that a VM was made from, and keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSet {
    /// Image.
    pub image: ImageId,
    /// Name it was asked for by.
    pub image_name: String,
    /// Virtual size of the image in bytes.
    pub image_bytes: u64,
    /// Kernel.
    pub kernel: KernelId,
}

/// What lasts as long as the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPlan {
    /// Id; names everything on the host.
    pub id: VmId,
    /// Name; also the guest's host name.
    pub name: VmName,
    /// Image and kernel.
    pub boot: BootSet,
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual size of the root disk in bytes.
    pub root_bytes: u64,
    /// Virtual size of the work disk in bytes.
    pub work_bytes: u64,
    /// Whether the guest reaches the outside.
    pub nat: bool,
    /// Ports of the host that lead to the guest.
    #[serde(default)]
    pub publish: Vec<PortForward>,
    /// Drivers.
    pub drivers: DriverPlan,
    /// Whether it outlives its maker.
    pub lifetime: Lifetime,
    /// 32 lowercase hex digits.
    pub machine_id: String,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// What lasts one run: from the moment a start is accepted until everything it did is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The operation that started it.
    pub operation: OpId,
    /// Boot id of the host: if it is another one now, nothing of this run can be alive.
    pub host_boot_id: String,
    /// What the guest was given on its network, once it is known.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// What forwards its published ports, once it is known and where there is such a process.
    #[serde(default)]
    pub forwarder: Option<ProcRef>,
    /// The shim, once it is known.
    pub shim: Option<ProcRef>,
    /// The VMM's process id, once it is known.
    pub vmm_pid: Option<u32>,
    /// The guest's boot id, once it said hello.
    pub boot_id: Option<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(id: &str, name: &str) -> VmPlan {
        let chosen = |name: &str| Chosen { name: name.into(), why: "a test".into() };
        VmPlan {
            id: id.parse().unwrap(),
            name: name.parse().unwrap(),
            boot: BootSet {
                image: "0123456789abcdef".parse().unwrap(),
                image_name: "debian".into(),
                image_bytes: 1 << 30,
                kernel: "fedcba9876543210".parse().unwrap(),
            },
            vcpus: 1,
            memory_mib: 512,
            root_bytes: 8 << 30,
            work_bytes: 8 << 30,
            nat: true,
            publish: Vec::new(),
            drivers: DriverPlan {
                vmm: chosen("sim"),
                storage: chosen("sim"),
                network: chosen("sim"),
            },
            lifetime: Lifetime::Keep,
            machine_id: "0".repeat(32),
            created_unix_ms: 0,
        }
    }
}
