//! States of a VM.

use serde::{Deserialize, Serialize};

/// State of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// The VM is not running.
    Stopped,
    /// The VM is starting.
    Starting,
    /// The VM is running.
    Running,
    /// The VM is running, with its vCPUs paused.
    Paused,
    /// The VM is stopping.
    Stopping,
    /// A cleanup failed; see the VM's problems.
    Broken,
    /// The VM is being deleted.
    Deleting,
}

impl VmState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Broken,
        Self::Deleting,
    ];

    /// Whether a VM in this state has, or may have, a VMM: then it reserves vCPUs and memory.
    pub fn has_vmm(self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Paused | Self::Stopping => true,
            Self::Stopped | Self::Broken | Self::Deleting => false,
        }
    }

    /// Name of the state in tables and JSON.
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
