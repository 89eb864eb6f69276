//! Resources of the host, for displays of what is reserved and what is left.

use serde::{Deserialize, Serialize};

/// The host's resources, and what VMs use of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HostView {
    /// CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Sum of the vCPUs of all VMs that are starting, running, paused or stopping.
    pub reserved_vcpus: u64,
    /// Sum of the memory of these VMs in bytes.
    pub reserved_memory_bytes: u64,
    /// Allocated bytes of VMs, images, kernels and caches.
    pub disk_used_bytes: u64,
    /// Free bytes where they are stored.
    pub disk_free_bytes: u64,
}
