//! What banger stores on the host's disk, and its removal.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// Bytes that a download, an import or a copy leaves free, and that a create and a start need.
pub const HEADROOM_BYTES: u64 = 64 << 20;

/// Kind of a stored object.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum StoredKind {
    /// The disks of a VM.
    Vm,
    /// An image.
    Image,
    /// A kernel with its modules.
    Kernel,
    /// A downloaded layer of images, or a part of one; it is downloaded again when it is needed.
    Layer,
    /// A file that is made again when it is needed.
    Cache,
    /// Logs of a VM that is gone.
    Log,
    /// What an interrupted pull or import has left.
    Unfinished,
}

impl StoredKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Vm,
        Self::Image,
        Self::Kernel,
        Self::Layer,
        Self::Cache,
        Self::Log,
        Self::Unfinished,
    ];

    /// Whether `system prune` removes unused objects of this kind, or, if `all`, `system prune
    /// --all`.
    pub fn is_pruned(self, all: bool) -> bool {
        match self {
            Self::Vm => false,
            Self::Image | Self::Kernel => all,
            Self::Layer | Self::Cache | Self::Log | Self::Unfinished => true,
        }
    }

    /// Its name in listings, plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Vm => "VMs",
            Self::Image => "images",
            Self::Kernel => "kernels",
            Self::Layer => "layers",
            Self::Cache => "caches",
            Self::Log => "logs",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stored {
    /// Kind.
    pub kind: StoredKind,
    /// Id of an image, kernel or VM; name of a file.
    pub id: String,
    /// Names of an image, kernel or VM.
    pub names: Vec<String>,
    /// Allocated size in bytes.
    pub used_bytes: u64,
    /// Names of the VMs that use it.
    pub used_by: Vec<String>,
    /// Whether a prune may remove it: nothing uses it.
    pub removable: bool,
}

impl Stored {
    /// Its names, or its id.
    pub fn label(&self) -> String {
        if self.names.is_empty() { self.id.clone() } else { self.names.join(", ") }
    }
}

/// Use of the host's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskUsage {
    /// All stored objects.
    pub objects: Vec<Stored>,
    /// Free bytes where they are stored.
    pub free_bytes: u64,
}

impl DiskUsage {
    /// The bytes that `system prune` frees, or, if `all`, `system prune --all`.
    pub fn pruned_bytes(&self, all: bool) -> u64 {
        let due = self.objects.iter().filter(|one| one.removable && one.kind.is_pruned(all));
        due.map(|one| one.used_bytes).fold(0, u64::saturating_add)
    }
}

/// Reference to a stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredRef {
    /// Kind.
    pub kind: StoredKind,
    /// Id as in the listing.
    #[schema(max_length = 255)]
    pub id: String,
}

/// Removes stored objects that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskPrune {
    /// The objects.
    #[schema(max_items = 10_000)]
    pub objects: Vec<StoredRef>,
}

/// Result for one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PrunedObject {
    /// Kind.
    pub kind: StoredKind,
    /// Id.
    pub id: String,
    /// Freed bytes.
    pub freed_bytes: u64,
    /// Why it was not removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// Result of a prune.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskPruned {
    /// The objects in the order of the request.
    pub objects: Vec<PrunedObject>,
    /// Freed bytes.
    pub freed_bytes: u64,
}
