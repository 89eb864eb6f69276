//! Plans: every choice about a VM and about one of its runs, made before the first effect.
//!
//! Names of host objects derive from the VM's id, so undoing needs nothing but the plan, and an
//! orphan on the host can be traced to its VM.

use core::net::Ipv4Addr;

use banger_api::publish::PortForward;
use banger_api::vm::Lifetime;
use banger_api::{ImageId, KernelId, OpId, VmId, VmName};
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

/// First uid of the range that VMMs run as when the daemon is root: between what systemd gives to
/// containers and the largest uid that all tools understand (systemd's `UIDS-GIDS` page).
const FIRST_UID: u32 = 1_879_048_192;
/// Size of that range.
const UIDS: u64 = 1 << 27;

impl VmPlan {
    /// The uid and gid of this VM's VMM and companion where the daemon is root.
    pub fn uid(&self) -> u32 {
        FIRST_UID + (self.id.bits() % UIDS) as u32
    }

    /// The guest's MAC address: locally administered, unicast, from the VM's id.
    pub fn mac(&self) -> String {
        let [_, _, _, b, c, d, e, f] = self.id.bits().to_be_bytes();
        format!("02:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
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

/// What a guest was given on a network where others can reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Its way out.
    pub gateway: Ipv4Addr,
    /// Resolvers it can reach.
    pub dns: Vec<Ipv4Addr>,
}

/// A process that cannot be mistaken for another: its id and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcRef {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since the host's boot, field 22 of `/proc/PID/stat`.
    pub start_time: u64,
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

    #[test]
    fn derived_names_are_well_formed() {
        let plan = plan("ffffffffffff", "web");
        assert_eq!(plan.mac(), "02:ff:ff:ff:ff:ff");
        assert!(plan.uid() >= FIRST_UID && plan.uid() < 2_147_352_576);
    }
}
