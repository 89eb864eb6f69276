//! `GET /events`: a chunked stream of JSON lines, one [`GuestEvent`] each, open while the VM runs.

use serde::{Deserialize, Serialize};

use crate::boot::BootProgress;

/// An event in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GuestEvent {
    /// First line of every stream.
    Attached {
        /// Boot id, which identifies the boot that answers.
        boot_id: String,
    },
    /// Sent every 30 s, to detect a dead connection.
    Heartbeat,
    /// The image's init has booted, or does not report its state.
    Booted {
        /// Result of the boot.
        progress: BootProgress,
    },
    /// The guest's init requested the end of the agent.
    Ending {
        /// Expected action, if the agent knows it.
        mode: PowerMode,
    },
}

/// Kind of shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerMode {
    /// Power off.
    Poweroff,
    /// Reboot.
    Reboot,
    /// Unknown to the agent.
    Unknown,
}
