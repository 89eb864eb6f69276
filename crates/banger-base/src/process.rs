//! References to processes.

use serde::{Deserialize, Serialize};

/// Identifies one process of this boot of the host. The kernel reuses process ids; an id together
/// with its start time is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcRef {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since the host's boot: field 22 of `/proc/PID/stat`, proc(5).
    pub start_time: u64,
}
