//! Actions on VMs, declared once.
//!
//! [`VmAction`] is the body of `POST /v1/vms/{vm}/actions`, what waits in the queue of a VM, and
//! what the client sends.

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};

/// An action on an existing VM, with its values, such as `{"stop": {"grace_ms": 5000}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VmAction {
    /// Boot it.
    Start {},
    /// Shut it down; kill it after the grace period.
    Stop {
        /// Grace period in milliseconds, at most a day.
        #[serde(default = "default_grace_ms")]
        #[schema(maximum = 86_400_000)]
        grace_ms: u64,
    },
    /// Stop it if it runs, then start it.
    Restart {
        /// Grace period in milliseconds, at most a day.
        #[serde(default = "default_grace_ms")]
        #[schema(maximum = 86_400_000)]
        grace_ms: u64,
    },
    /// Stop it without grace.
    Kill {},
    /// Remove it with its disks.
    Delete {
        /// Also when it runs (it is killed) or is broken.
        #[serde(default)]
        force: bool,
    },
    /// Finish the undoing that left it broken.
    Repair {},
}

fn default_grace_ms() -> u64 {
    DEFAULT_GRACE_MS
}

impl VmAction {
    /// A stop with the usual grace period.
    pub const STOP: Self = Self::Stop { grace_ms: DEFAULT_GRACE_MS };

    /// The word used in messages, and for the operation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start {} => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Kill {} => "kill",
            Self::Delete { .. } => "delete",
            Self::Repair {} => "repair",
        }
    }

    /// Checks its values.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the value.
    pub fn check(self) -> Result<(), ApiError> {
        match self {
            Self::Stop { grace_ms } | Self::Restart { grace_ms } if grace_ms > MAX_GRACE_MS => {
                let text = format!("a grace period of {grace_ms} ms: at most {MAX_GRACE_MS} ms");
                Err(ApiError::new(ErrorCode::BadRequest, text))
            }
            _ => Ok(()),
        }
    }
}

/// Grace period of a stop where none was given, in milliseconds: systemd's own for a service
/// (`DefaultTimeoutStopSec`), so that guests with containers end in order.
pub const DEFAULT_GRACE_MS: u64 = 90_000;
/// Longest grace period, in milliseconds.
pub const MAX_GRACE_MS: u64 = 24 * 3600 * 1000;
