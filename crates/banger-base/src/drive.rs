//! What the drives of a VM are for.

use serde::{Deserialize, Serialize};

/// What a drive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveRole {
    /// Root disk, or its private layer.
    Root,
    /// Work disk.
    Work,
    /// The shared image, read-only.
    Image,
    /// The kernel's modules, read-only.
    Modules,
}

impl DriveRole {
    /// Its word in the names of devices and in serial numbers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Work => "work",
            Self::Image => "image",
            Self::Modules => "modules",
        }
    }

    /// Whether the guest may write to it.
    pub fn writable(self) -> bool {
        matches!(self, Self::Root | Self::Work)
    }
}
