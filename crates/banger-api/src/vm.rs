//! VMs as they are asked for and as they are shown.

use serde::{Deserialize, Serialize};

use crate::VmId;
pub use crate::action::{DEFAULT_GRACE_MS, MAX_GRACE_MS, VmAction};
use crate::boot::BootView;
use crate::error::{ApiError, ErrorCode};
use crate::ids::{ImageId, KernelId, OpId};
use crate::limits;
use crate::names::VmName;
use crate::publish::{self, PortForward};

/// State of a VM as everybody sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Not running.
    Stopped,
    /// On its way up.
    Starting,
    /// Up.
    Running,
    /// Up, with its vCPUs held.
    Paused,
    /// On its way down.
    Stopping,
    /// Something of it could not be undone.
    Broken,
    /// Being removed.
    Deleting,
}

impl VmState {
    /// The word used in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Broken => "broken",
            Self::Deleting => "deleting",
        }
    }
}

/// Why a VM is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum StoppedBecause {
    /// It was created and not started yet.
    NeverStarted,
    /// Somebody asked for it.
    Asked {
        /// How it went down.
        how: StopKind,
    },
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The VMM ended without being asked.
    VmmDied {
        /// Its story: exit code or signal, last lines of the console.
        story: String,
    },
    /// A start did not succeed.
    StartFailed {
        /// The operation that failed.
        operation: OpId,
        /// Why, in one line.
        error: String,
    },
    /// The host was restarted while it ran.
    HostRestarted,
}

/// How a stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// The guest shut down by itself.
    Graceful,
    /// The VMM was killed after the grace period.
    KilledAfterGrace,
    /// The VMM was killed at once, as asked.
    Killed,
}

/// Whether a VM outlives the command that made it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Keep,
    /// Until the session that made it ends, or it stops (`--rm`).
    Session,
    /// Until it stops (`--rm --detach`).
    UntilStopped,
}

/// A VM to make. An absent value means the default; an explicit zero is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// DNS label; made up where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name or id of an image, or a built-in recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Name or id of a kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// vCPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Virtual size of the root disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_bytes: Option<u64>,
    /// Virtual size of the work disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_bytes: Option<u64>,
    /// Whether the guest reaches the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// Ports of the host that lead to the guest; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PortForward>,
    /// Whether it outlives its maker.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Leave it stopped.
    #[serde(default)]
    pub no_start: bool,
}

impl CreateVm {
    /// Checks every value that can be checked without knowing the host.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the value.
    pub fn check(&self) -> Result<(), ApiError> {
        let bad =
            |error: &dyn std::error::Error| ApiError::new(ErrorCode::BadRequest, error.to_string());
        if let Some(name) = &self.name {
            name.parse::<VmName>()
                .map_err(|e| bad(&e).with_hint("a VM name is a DNS label, such as web-1"))?;
        }
        if let Some(vcpus) = self.vcpus {
            limits::check_vcpus(vcpus).map_err(|e| bad(&e))?;
        }
        if let Some(mib) = self.memory_mib {
            limits::check_memory_mib(mib).map_err(|e| bad(&e))?;
        }
        if let Some(bytes) = self.root_bytes {
            limits::check_disk("root disk", bytes).map_err(|e| bad(&e))?;
        }
        if let Some(bytes) = self.work_bytes {
            limits::check_disk("work disk", bytes).map_err(|e| bad(&e))?;
        }
        publish::check(&self.publish).map_err(|e| bad(&e))?;
        if self.no_start && self.lifetime != Lifetime::Keep {
            return Err(ApiError::new(
                ErrorCode::BadRequest,
                "a VM that is removed when it stops cannot be made without starting it",
            ));
        }
        Ok(())
    }
}

/// Disk accounting of one VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskView {
    /// Virtual size of the root disk.
    pub root_bytes: u64,
    /// Bytes its private part really takes on the host.
    pub root_used_bytes: u64,
    /// Virtual size of the work disk.
    pub work_bytes: u64,
    /// Bytes it really takes on the host.
    pub work_used_bytes: u64,
}

/// One line of `vm list --json`. Its first nine fields are a contract with scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmSummary {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State.
    pub state: VmState,
    /// Name of the image it was made from.
    pub image: String,
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Address, where it has one of its own.
    pub ip: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Disk accounting.
    pub disk: DiskView,
    /// Operation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
    /// Ports of the host that lead to the guest while it runs.
    #[serde(default)]
    pub publish: Vec<PortForward>,
}

/// `vm show --json`: the summary and everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmDetails {
    /// What the list shows too.
    #[serde(flatten)]
    pub summary: VmSummary,
    /// Process id of the VMM, while there is one.
    pub pid: Option<u32>,
    /// The guest's boot id, while it runs.
    pub boot_id: Option<String>,
    /// Why it is stopped, when it is.
    pub stopped_because: Option<StoppedBecause>,
    /// Drivers in use.
    pub drivers: Drivers,
    /// Why each of them was chosen.
    pub why: DriverReasons,
    /// Timings of the last successful start.
    pub start: Option<StartReport>,
    /// How far the guest has booted, while it runs.
    #[serde(default)]
    pub boot: Option<BootView>,
    /// Files to look at.
    pub paths: VmPaths,
    /// Image it was made from.
    pub image_id: ImageId,
    /// Kernel it boots.
    pub kernel_id: KernelId,
    /// Whether it outlives its maker.
    pub lifetime: Lifetime,
    /// What could not be undone, where it is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What a user should know while it runs: why its guest is held, or that the disk of the host
    /// is nearly full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Counts every change of this VM.
    pub generation: u64,
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

/// One sentence for each driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DriverReasons {
    /// Why this VMM.
    pub vmm: String,
    /// Why this storage.
    pub storage: String,
    /// Why this network.
    pub network: String,
}

/// What a start spent its time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StartReport {
    /// From the acceptance of the start until `running`, in milliseconds.
    pub total_ms: u64,
    /// Stages on the host, in order.
    pub stages: Vec<Timing>,
    /// Stages in the guest, in order, as it reported them.
    pub guest: Vec<Timing>,
}

/// A named duration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timing {
    /// Stage.
    pub name: String,
    /// Milliseconds.
    pub ms: u64,
}

/// Files of a VM for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmPaths {
    /// The guest's serial console.
    pub console_log: String,
    /// What the VMM and its companion said.
    pub vmm_log: String,
    /// What the process that owns the VMM said; root's alone where root's part starts it.
    #[serde(default)]
    pub shim_log: String,
}

/// What the agent said of itself.
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
    /// Why it did not, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time the answer took, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: Option<u64>,
    /// The guest's boot id as the agent tells it.
    pub boot_id: Option<String>,
}

/// State of the agent as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentHealth {
    /// It answered.
    Ok,
    /// The VM runs but its agent does not answer.
    Lost,
    /// The VM does not run.
    NotRunning,
}
