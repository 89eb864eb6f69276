//! What a shim tells of a VM that runs.

use serde::{Deserialize, Serialize};

/// What a user should know of a VM that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStatus {
    /// Set when a disk write of the guest failed on the host.
    pub disk: Option<DiskTrouble>,
    /// Whether the vCPUs are paused on request; `None` if this shim cannot pause them.
    #[serde(default)]
    pub vcpus: Option<VcpuState>,
}

/// State of the vCPUs as far as a user requested it: a guest that the VMM holds for a failed disk
/// write counts as running, unless it is paused as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VcpuState {
    /// Running.
    Running,
    /// Paused.
    Paused,
}

/// What a failed disk write led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskTrouble {
    /// It found no room; the VMM holds the guest's vCPUs until there is some.
    HeldNoSpace,
    /// It failed otherwise; the VMM holds the guest's vCPUs and repeats it now and then.
    HeldWriteError,
    /// It found no room, and the guest got an I/O error.
    GuestGotErrors,
}
