//! Resource counters: optional interfaces of the VMM and network drivers, and the answer of the
//! guest. Reading them changes nothing, so their futures may be dropped at any time.

use async_trait::async_trait;
use banger_api::stats::GuestMemory;

use crate::plan::{RunPlan, VmPlan};

/// Counters of a VMM since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmmUsage {
    /// Time of the sample on a clock that is never set, in microseconds.
    pub sampled_us: u64,
    /// Age of the VMM in milliseconds.
    pub uptime_ms: u64,
    /// CPU time of all its threads in microseconds.
    pub cpu_time_us: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Disk transfers in bytes, if this process may read them.
    pub disk: Option<Transfers>,
}

/// Bytes transferred in both directions, as seen by the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Read or received by the guest.
    pub inward_bytes: u64,
    /// Written or sent by the guest.
    pub outward_bytes: u64,
}

/// Counters of a guest since it booted, as its agent reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestUsage {
    /// Memory.
    pub memory: Option<GuestMemory>,
    /// Transfers of its disks.
    pub disk: Option<Transfers>,
    /// Transfers of its network interfaces except the loopback.
    pub network: Option<Transfers>,
}

/// Counters of a VMM.
#[async_trait]
pub trait VmmMeter: Send + Sync {
    /// Reads the counters of a run; `None` if its VMM has ended.
    async fn read(&self, vm: &VmPlan, run: &RunPlan) -> Option<VmmUsage>;
}

/// Counters of a network interface on the host.
#[async_trait]
pub trait NicMeter: Send + Sync {
    /// Reads the counters of an attached VM; `None` if it has no interface.
    async fn read(&self, vm: &VmPlan) -> Option<Transfers>;
}
