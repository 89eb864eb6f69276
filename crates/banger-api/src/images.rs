//! Images and kernels as they are asked for and shown.

use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, KernelId};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageView {
    /// Id.
    pub id: ImageId,
    /// Names that point to it.
    pub names: Vec<String>,
    /// Where it came from.
    pub source: String,
    /// Virtual size of its root file system in bytes.
    pub virtual_bytes: u64,
    /// Bytes it really takes.
    pub used_bytes: u64,
    /// Init program found in it, if any.
    pub init: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// SHA-256 of its contents.
    pub fingerprint: String,
    /// Names of the VMs that were made from it.
    pub used_by: Vec<String>,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KernelView {
    /// Id.
    pub id: KernelId,
    /// Names that point to it.
    pub names: Vec<String>,
    /// `uname -r`.
    pub release: String,
    /// Where it came from.
    pub source: String,
    /// Bytes it really takes, modules included.
    pub used_bytes: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Names of the VMs that boot it.
    pub used_by: Vec<String>,
}

/// Fetch by a built-in recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Recipe: `debian` for images, `debian-cloud` for kernels.
    pub name: String,
}

/// Make an image from a file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// Absolute path of a rootfs tar, plain or compressed.
    pub path: String,
    /// Name to give it.
    pub name: String,
}

/// What a deletion freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Deleted {
    /// Id of what was deleted.
    pub id: String,
    /// Bytes freed.
    pub freed_bytes: u64,
}

/// The image that is used where none is named.
pub const DEFAULT_IMAGE: &str = "debian";
/// The kernel that is used where none is named.
pub const DEFAULT_KERNEL: &str = "debian-cloud";

/// Checks the name of an image or kernel: 1–128 of a–z, 0–9, `.`, `_`, `-`, beginning with a letter
/// or digit.
pub fn is_ref_name(name: &str) -> bool {
    let first_ok =
        name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first_ok
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}
