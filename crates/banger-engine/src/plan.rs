//! Plans: every choice about a VM and about one of its runs, made before the first effect.
//!
//! Requested and actual configuration are separate: a user may change [`VmSpec`], [`VmPlan`] is
//! permanent, and a [`RunPlan`] contains the specification with which the run started.
//!
//! Names of host objects derive from the VM's id, so an undo needs only the plan, and an orphan on
//! the host can be traced to its VM.

use std::collections::BTreeMap;

use banger_api::agent::AgentLogin;
use banger_api::labels::Labels;
use banger_api::limits::VmDefaults;
use banger_api::publish::PortForward;
use banger_api::sync::SyncFolder;
use banger_api::vm::{CreateVm, Lifetime};
use banger_api::{ImageId, KernelId, OpId, VmId, VmName};
pub use banger_base::{Lease, ProcRef};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::oplog::StepId;
use crate::program::Program;

/// A driver and the reason it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Name of the driver.
    pub name: String,
    /// Why, in one sentence.
    pub why: String,
}

/// The drivers of a VM, permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverPlan {
    /// VMM.
    pub vmm: Chosen,
    /// Storage.
    pub storage: Chosen,
    /// Network.
    pub network: Chosen,
}

/// The image and kernel of a VM, permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSet {
    /// Image.
    pub image: ImageId,
    /// Its name in the request.
    pub image_name: String,
    /// Virtual size of the image in bytes.
    pub image_bytes: u64,
    /// Kernel.
    pub kernel: KernelId,
    /// Whether the image has opencode.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub opencode: bool,
}

/// The part of the configuration that a user may change. A change takes effect at the next start,
/// except for values that a capability changes live: the run in progress has a specification of its
/// own ([`RunPlan::spec`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual size of the root disk in bytes.
    pub root_bytes: u64,
    /// Virtual size of the work disk in bytes.
    pub work_bytes: u64,
    /// Whether the guest reaches networks beyond the host.
    pub nat: bool,
    /// Ports of the host that lead to the guest.
    pub publish: Vec<PortForward>,
    /// Whether the daemon starts the VM when it starts itself: [`crate::autostart`].
    #[serde(default)]
    pub autostart: bool,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
    /// Live folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sync: Vec<SyncFolder>,
}

impl VmSpec {
    /// The values of a request, completed by the defaults.
    pub fn of(request: &CreateVm, defaults: &VmDefaults) -> Self {
        Self {
            vcpus: request.vcpus.unwrap_or(defaults.vcpus),
            memory_mib: request.memory_mib.unwrap_or(defaults.memory_mib),
            root_bytes: request.root_bytes.unwrap_or(defaults.root_bytes),
            work_bytes: request.work_bytes.unwrap_or(defaults.work_bytes),
            nat: request.nat.unwrap_or(defaults.nat),
            publish: request.publish.clone(),
            autostart: request.autostart,
            labels: request.labels.clone(),
            sync: request.sync.clone(),
        }
    }
}

/// Identity and permanent choices of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPlan {
    /// Id; names of host objects derive from it.
    pub id: VmId,
    /// Name; also the guest's host name.
    pub name: VmName,
    /// Image and kernel.
    pub boot: BootSet,
    /// Drivers.
    pub drivers: DriverPlan,
    /// When it is deleted automatically.
    pub lifetime: Lifetime,
    /// 32 lowercase hex digits.
    pub machine_id: String,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The program that the machine runs instead of an init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Login of a coding agent that each start hands over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_login: Option<AgentLogin>,
    /// The image build to which it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildPlan>,
}

/// The image build of a temporary VM. Such a VM has no work disk: `/root` is part of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// Its operation.
    pub operation: OpId,
    /// Whether the VM is kept if the build fails or the daemon ends meanwhile.
    pub keep: bool,
}

/// A live change of a run: the values to restore if it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveChange {
    /// The specification of the run before the change.
    pub from: VmSpec,
    /// The steps of the run before the change.
    pub steps: Vec<StepId>,
    /// Steps that are undone and applied again.
    pub again: Vec<StepId>,
}

/// One run: from the acceptance of a start until all its steps are undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The operation that started it.
    pub operation: OpId,
    /// Boot id of the host: if it has changed, no process of this run can be alive.
    pub host_boot_id: String,
    /// The specification with which the run started and live changes since; used by undo and
    /// adoption.
    pub spec: VmSpec,
    /// Its steps in order; undo uses these even if a later build has other steps.
    pub steps: Vec<StepId>,
    /// Results of steps for their undo or a later daemon.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<StepId, serde_json::Value>,
    /// Lease of the guest's address, if it has one.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Whether the program of the machine waits for a client.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub attach: bool,
    /// The live change of this run in progress. A daemon that finds one takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<LiveChange>,
    /// End of the grace period of the stop in progress, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_by_ms: Option<u64>,
    /// The shim, once it is known.
    pub shim: Option<ProcRef>,
    /// The VMM's process id, once it is known.
    pub vmm_pid: Option<u32>,
    /// The guest's boot id, once its hello arrived.
    pub boot_id: Option<String>,
}

impl RunPlan {
    /// A run without applied steps.
    pub fn new(operation: OpId, host_boot_id: String, spec: VmSpec, steps: Vec<StepId>) -> Self {
        Self {
            operation,
            host_boot_id,
            spec,
            steps,
            found: BTreeMap::new(),
            lease: None,
            attach: false,
            change: None,
            stop_by_ms: None,
            shim: None,
            vmm_pid: None,
            boot_id: None,
        }
    }

    /// The result of a step, if there is one.
    pub fn found<T: DeserializeOwned>(&self, step: &StepId) -> Option<T> {
        self.found.get(step).and_then(|value| serde_json::from_value(value.clone()).ok())
    }
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
                opencode: false,
            },
            drivers: DriverPlan {
                vmm: chosen("sim"),
                storage: chosen("sim"),
                network: chosen("sim"),
            },
            lifetime: Lifetime::Keep,
            machine_id: "0".repeat(32),
            created_unix_ms: 0,
            program: None,
            agent_login: None,
            build: None,
        }
    }

    pub(crate) fn spec() -> VmSpec {
        VmSpec {
            vcpus: 1,
            memory_mib: 512,
            root_bytes: 8 << 30,
            work_bytes: 8 << 30,
            nat: true,
            publish: Vec::new(),
            autostart: false,
            labels: Labels::default(),
            sync: Vec::new(),
        }
    }
}
