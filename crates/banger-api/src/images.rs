//! Images and kernels as they are asked for and shown.

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};
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

impl ImageView {
    /// The refusal to take one of its names away.
    pub fn name_taken(&self, name: &str) -> ApiError {
        let users = match self.used_by.as_slice() {
            [] => String::new(),
            users => format!(", which is used by {}", users.join(", ")),
        };
        let text = format!("the name `{name}` belongs to the image {}{users}", self.id);
        ApiError::new(ErrorCode::NameTaken, text)
            .with_hint("choose another name, or give `--replace` to move this one")
    }
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

/// Make an image by a built-in recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePullRequest {
    /// Recipe: `debian`.
    pub name: String,
    /// Make the image anew even if there is one of the same recipe: with today's packages.
    #[serde(default)]
    pub refresh: bool,
}

/// Fetch a kernel by a built-in recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Recipe: `debian-cloud`.
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
    /// Take the name away from the image that has it.
    #[serde(default)]
    pub replace: bool,
}

/// Make an image of the body of the request: query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ImageUpload {
    /// Name to give it.
    pub name: String,
    /// Take the name away from the image that has it.
    #[serde(default)]
    pub replace: bool,
}

/// Give an image one more name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// The name.
    pub name: String,
    /// Take the name away from the image that has it.
    #[serde(default)]
    pub replace: bool,
}

/// What a deletion freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Deleted {
    /// Id of what was deleted.
    pub id: String,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Names that the object still has: only a name was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
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
