//! Requests about VMs, and their views.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::action::{DEFAULT_GRACE_MS, MAX_GRACE_MS, VmAction};
use crate::agent::AgentLogin;
use crate::boot::BootView;
use crate::error::{ApiError, ErrorCode};
use crate::handover::HandedOver;
use crate::hint::{Hint, Kind};
use crate::ids::{ImageId, KernelId, OpId};
use crate::labels::Labels;
use crate::limits::{self, Sizes};
use crate::names::VmName;
use crate::program::{ProgramRequest, ProgramView};
use crate::publish::{self, PortForward};
use crate::sync::{self, SyncFolder, SyncView};
use crate::{ByteString, VmId};

pub use crate::state::VmState;

/// Why a VM is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum StoppedBecause {
    /// The VM was created and has not been started yet.
    NeverStarted,
    /// A user requested the stop.
    #[serde(rename = "asked")]
    Requested {
        /// How the guest went down.
        how: StopKind,
    },
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The program of the machine ended.
    ProgramEnded {
        /// Its exit code; 128+n for signal n.
        code: u8,
    },
    /// The VMM ended unexpectedly.
    VmmDied {
        /// Exit code or signal, and the last lines of the console.
        story: String,
    },
    /// A start failed.
    StartFailed {
        /// The operation that failed.
        operation: OpId,
        /// The error, in one line.
        error: String,
    },
    /// The host restarted while the VM was running.
    HostRestarted,
}

/// How a stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// The guest shut down.
    Graceful,
    /// The VMM was killed after the grace period.
    KilledAfterGrace,
    /// The VMM was killed immediately, as requested.
    Killed,
}

/// When a VM is deleted automatically.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Never.
    #[default]
    Keep,
    /// When it stops, or when the session that created it ends (`--rm`).
    Session,
    /// When it stops (`--rm --detach`).
    UntilStopped,
}

/// A VM to create. An absent value means the default; zero is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// DNS label; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    pub name: Option<String>,
    /// Name or id of an image, a built-in recipe, or an image of a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9\\[][A-Za-z0-9._:/@\\[\\]-]{0,254}$")]
    pub image: Option<String>,
    /// Name or id of a kernel, or `image` for the one that the image contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub kernel: Option<String>,
    /// vCPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::vcpus_schema)]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::memory_schema)]
    pub memory_mib: Option<u64>,
    /// Virtual size of the root disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::root_disk_schema)]
    pub root_bytes: Option<u64>,
    /// Virtual size of the work disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::work_disk_schema)]
    pub work_bytes: Option<u64>,
    /// Whether the guest can reach networks outside of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// Published TCP ports; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub publish: Vec<PortForward>,
    /// Labels; at most 64.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Live folders; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub sync: Vec<SyncFolder>,
    /// When the VM is deleted automatically.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Do not start the VM.
    #[serde(default)]
    pub no_start: bool,
    /// Start the VM when the daemon starts, unless it was stopped before.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub autostart: bool,
    /// Changes of the program that the image names, if the image has no init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramRequest>,
    /// Login of a coding agent that the VM gets at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_login: Option<AgentLogin>,
}

impl CreateVm {
    /// Checks every value that can be checked without querying the host.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the value.
    pub fn check(&self) -> Result<(), ApiError> {
        let bad =
            |error: &dyn std::error::Error| ApiError::new(ErrorCode::BadRequest, error.to_string());
        if let Some(name) = &self.name {
            name.parse::<VmName>()
                .map_err(|e| bad(&e).with_hint(Hint::FollowNameRule { what: Kind::Vm }))?;
        }
        let (vcpus, memory_mib) = (self.vcpus, self.memory_mib);
        let sizes =
            Sizes { vcpus, memory_mib, root_bytes: self.root_bytes, work_bytes: self.work_bytes };
        sizes.check().map_err(|e| bad(&e))?;
        publish::check(&self.publish).map_err(|e| bad(&e))?;
        sync::check(&self.sync).map_err(|e| bad(&e))?;
        self.program.as_ref().map_or(Ok(()), ProgramRequest::check)?;
        self.agent_login.as_ref().map_or(Ok(()), AgentLogin::check)?;
        if self.no_start && self.lifetime != Lifetime::Keep {
            return Err(ApiError::new(
                ErrorCode::BadRequest,
                "a VM that is deleted when it stops must be started",
            ));
        }
        if self.autostart && self.lifetime != Lifetime::Keep {
            return Err(ApiError::new(
                ErrorCode::BadRequest,
                "a VM that is deleted when it stops cannot be started automatically",
            ));
        }
        Ok(())
    }
}

/// Disk usage of one VM, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskView {
    /// Virtual size of the root disk.
    pub root_bytes: u64,
    /// Allocated size of its private part on the host.
    pub root_used_bytes: u64,
    /// Virtual size of the work disk.
    pub work_bytes: u64,
    /// Allocated size of the work disk on the host.
    pub work_used_bytes: u64,
}

/// One entry of `vm list --json`. The first nine fields are a stable format for scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmSummary {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State.
    pub state: VmState,
    /// Name of the image.
    pub image: String,
    /// vCPUs; `null` if the record cannot be parsed.
    pub vcpus: Option<u32>,
    /// Memory in MiB; `null` if the record cannot be parsed.
    pub memory_mib: Option<u64>,
    /// IPv4 address on the bridge, if the VM has one.
    pub ip: Option<String>,
    /// Time of creation: RFC 3339, UTC.
    pub created_at: String,
    /// Disk usage; `null` if the record cannot be parsed.
    pub disk: Option<DiskView>,
    /// Operation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
    /// Published ports, while the VM is running.
    #[serde(default)]
    pub publish: Vec<PortForward>,
    /// Labels by key.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it serves opencode on port [`crate::opencode::PORT`] of the guest.
    #[serde(default)]
    pub opencode: bool,
    /// Why its record cannot be parsed; absent if it can. Otherwise unknown values are `null` or
    /// empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `vm show --json`: the summary and further details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmDetails {
    /// The summary.
    #[serde(flatten)]
    pub summary: VmSummary,
    /// Process id of the VMM, while it is running.
    pub pid: Option<u32>,
    /// Boot id of the guest, while it is running.
    pub boot_id: Option<String>,
    /// Why the VM is stopped, if it is.
    pub stopped_because: Option<StoppedBecause>,
    /// Drivers in use.
    pub drivers: Drivers,
    /// Why each driver was chosen.
    pub why: DriverReasons,
    /// Timings of the last successful start.
    pub start: Option<StartReport>,
    /// State of the guest's boot, while it is running.
    #[serde(default)]
    pub boot: Option<BootView>,
    /// Log files.
    pub paths: VmPaths,
    /// The image.
    pub image_id: ImageId,
    /// The kernel.
    pub kernel_id: KernelId,
    /// When the VM is deleted automatically.
    pub lifetime: Lifetime,
    /// Whether it is started when the daemon starts, unless it was stopped before.
    #[serde(default)]
    pub autostart: bool,
    /// The program that the machine runs instead of an init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramView>,
    /// Live folders with their state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sync: Vec<SyncView>,
    /// Errors of the failed cleanup, if the VM is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Warnings about the running VM: why the guest is paused, or that the host's disk is nearly
    /// full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Values that the next start uses, while they differ from those of the running VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<SpecView>,
    /// Generation: incremented with each change of the VM.
    pub generation: u64,
}

/// Values of a VM that `vm set` changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SpecView {
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual size of the root disk in bytes.
    pub root_bytes: u64,
    /// Virtual size of the work disk in bytes.
    pub work_bytes: u64,
    /// Whether the guest can reach networks outside of the host.
    pub nat: bool,
    /// Published ports.
    pub publish: Vec<PortForward>,
}

/// Names of the drivers of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Drivers {
    /// `qemu`, `firecracker`, `sim`.
    pub vmm: String,
    /// `overlay`, `copy`, `reflink`, `dm-snapshot`, `sim`.
    pub storage: String,
    /// `user`, `bridge`, `none`, `sim`.
    pub network: String,
}

/// Reasons for the choice of each driver, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DriverReasons {
    /// Why this VMM.
    pub vmm: String,
    /// Why this storage.
    pub storage: String,
    /// Why this network.
    pub network: String,
}

/// Timings of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StartReport {
    /// Milliseconds from acceptance of the start until `running`.
    pub total_ms: u64,
    /// Stages on the host, in order.
    pub stages: Vec<Timing>,
    /// Stages in the guest, in order, as reported by the agent.
    pub guest: Vec<Timing>,
    /// Files of the host that the guest received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handed_over: Vec<HandedOver>,
}

/// A stage and its duration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timing {
    /// Name of the stage.
    pub name: String,
    /// Milliseconds.
    pub ms: u64,
}

/// Log files of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmPaths {
    /// Serial console of the guest.
    pub console_log: ByteString,
    /// Output of the VMM and its companion.
    pub vmm_log: ByteString,
    /// Output of the shim; readable for root only if the helper started it.
    #[serde(default)]
    pub shim_log: ByteString,
}

/// Answer of the guest agent to a health request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmHealth {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State of the VM.
    pub state: VmState,
    /// Whether the agent answered.
    pub agent: AgentHealth,
    /// Why it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Round-trip time in microseconds.
    pub round_trip_us: Option<u64>,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: Option<u64>,
    /// Boot id of the guest, as reported by the agent.
    pub boot_id: Option<String>,
    /// How many agents of this run ended before the guest did, and were started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_restarts: Option<u32>,
    /// What a user should know of the agent, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Health of the guest agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentHealth {
    /// The agent answered.
    Ok,
    /// The VM is running, but its agent does not answer.
    Lost,
    /// The VM is not running.
    NotRunning,
}
