//! `GET /events`: a chunked stream of JSON lines, one [`GuestEvent`] each, open while the VM runs.

use serde::{Deserialize, Serialize};

use crate::boot::BootProgress;

/// Something the host wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GuestEvent {
    /// First line of every stream.
    Attached {
        /// Proves which boot is answering.
        boot_id: String,
    },
    /// Sent every 30 s, so that a dead connection is seen.
    Heartbeat,
    /// The image's init has booted, or is known not to report it.
    Booted {
        /// How it went.
        progress: BootProgress,
    },
    /// The guest's init told the agent to end.
    Ending {
        /// What follows, as far as the agent can tell.
        mode: PowerMode,
    },
}

/// How a guest goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerMode {
    /// Power off.
    Poweroff,
    /// Boot again.
    Reboot,
    /// The agent cannot tell.
    Unknown,
}
