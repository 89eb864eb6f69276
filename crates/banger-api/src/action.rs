//! Actions on VMs, declared once.
//!
//! [`VmAction`] is the body of `POST /v1/vms/{vm}/actions` and the entry in the queue of a VM.

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};
use crate::names::VmName;
use crate::set::SetVm;

/// An action on an existing VM with its parameters, such as `{"stop": {"grace_ms": 5000}}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VmAction {
    /// Start the VM.
    Start {},
    /// Shut the VM down; kill it after the grace period.
    Stop {
        /// Grace period in milliseconds, at most 24 hours.
        #[serde(default = "default_grace_ms")]
        #[schema(maximum = 86_400_000)]
        grace_ms: u64,
    },
    /// Stop the VM if it is running, then start it.
    Restart {
        /// Grace period in milliseconds, at most 24 hours.
        #[serde(default = "default_grace_ms")]
        #[schema(maximum = 86_400_000)]
        grace_ms: u64,
    },
    /// Kill the VM.
    Kill {},
    /// Pause the vCPUs: the VM keeps its memory, and its guest does not run until it is resumed.
    Pause {},
    /// Resume the vCPUs of a paused VM, and set the guest's clock.
    Resume {},
    /// Delete the VM with its disks.
    Delete {
        /// Delete it even if it is running (it is killed) or broken.
        #[serde(default)]
        force: bool,
    },
    /// Retry the cleanup that left the VM broken.
    Repair {},
    /// Change the specification, at once or from the next start on.
    Set(Box<SetVm>),
    /// Give the VM another name. Its DNS name follows at once, the guest's host name at the next
    /// start.
    Rename {
        /// The new name: a DNS label that no other VM has.
        #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
        name: VmName,
    },
    /// Replace the root disk of a stopped VM by a fresh one from its image. Machine id and SSH host
    /// key are new; work disk, name, ports and labels stay.
    Reset {},
}

fn default_grace_ms() -> u64 {
    DEFAULT_GRACE_MS
}

impl VmAction {
    /// A stop with the default grace period.
    pub const STOP: Self = Self::Stop { grace_ms: DEFAULT_GRACE_MS };

    /// Name of the action in messages, and of its operation.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Start {} => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Kill {} => "kill",
            Self::Pause {} => "pause",
            Self::Resume {} => "resume",
            Self::Delete { .. } => "delete",
            Self::Repair {} => "repair",
            Self::Set(_) => "set",
            Self::Rename { .. } => "rename",
            Self::Reset {} => "reset",
        }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the parameter.
    pub fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::Stop { grace_ms } | Self::Restart { grace_ms } if *grace_ms > MAX_GRACE_MS => {
                let text = format!("a grace period of {grace_ms} ms: at most {MAX_GRACE_MS} ms");
                Err(ApiError::new(ErrorCode::BadRequest, text))
            }
            Self::Set(set) => set.check(),
            _ => Ok(()),
        }
    }
}

/// Default grace period of a stop, in milliseconds: that of systemd for a service
/// (`DefaultTimeoutStopSec`), so that guests with containers shut down cleanly.
pub const DEFAULT_GRACE_MS: u64 = 90_000;
/// Maximum grace period in milliseconds.
pub const MAX_GRACE_MS: u64 = 24 * 3600 * 1000;
