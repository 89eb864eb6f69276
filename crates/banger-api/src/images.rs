//! Requests about images and kernels, and their views.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ByteString;
use crate::build::BuildInputs;
use crate::error::{ApiError, ErrorCode};
use crate::hint::Hint;
use crate::ids::{ImageId, KernelId};
use crate::operation::VmTag;
pub use crate::signature::{ImageSignature, SignatureScheme};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageView {
    /// Id.
    pub id: ImageId,
    /// Names that point to it.
    pub names: Vec<String>,
    /// Source of the image.
    pub source: String,
    /// Details of the source: digest of what was imported, or contents of the recipe.
    #[serde(default)]
    pub provenance: String,
    /// Name of the distribution, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Number of installed packages, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<u64>,
    /// Virtual size of the root file system in bytes.
    pub virtual_bytes: u64,
    /// Allocated size in bytes.
    pub used_bytes: u64,
    /// Init program found in it, if any.
    pub init: Option<String>,
    /// Whether it has opencode, which its VMs serve.
    #[serde(default)]
    pub opencode: bool,
    /// Time of creation: RFC 3339, UTC.
    pub created_at: String,
    /// SHA-256 of the content.
    pub fingerprint: String,
    /// What it was built from, if it was built in a VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<BuildInputs>,
    /// The VM whose root disk it was, if it was made by a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<CommittedFrom>,
    /// The file of the host with the root file system, if it stays there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<ByteString>,
    /// Names of the VMs that use the image.
    pub used_by: Vec<String>,
    /// How a container of the image runs, if it was made from a container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ImageConfig>,
    /// The signature that was verified when it was pulled, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ImageSignature>,
}

/// The origin of an image that was made by a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommittedFrom {
    /// The VM; it may be gone, or have another name by now.
    pub vm: VmTag,
    /// Id of the image from which the VM was made.
    pub base: ImageId,
    /// Name of that image when the VM was made.
    pub base_name: String,
}

/// An image in the chain of images from which another one was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageHistoryEntry {
    /// Id.
    pub id: ImageId,
    /// Names that point to it; of a deleted image, the name that it had then.
    pub names: Vec<String>,
    /// The image, unless it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageView>,
}

impl ImageView {
    /// Id and name of the image from which this one was made in a VM.
    pub fn base(&self) -> Option<(&ImageId, &str)> {
        let built = self.built.as_ref().map(|built| (&built.base, built.base_name.as_str()));
        let committed = self.committed.as_ref();
        built.or(committed.map(|from| (&from.base, from.base_name.as_str())))
    }
}

/// How a container of an image runs: `config` of the OCI image specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ImageConfig {
    /// Program and arguments that `cmd` is appended to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Default arguments, or program and arguments if there is no entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Environment: `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// User, and group after a colon: names or numbers; root if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working folder; `/` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Ports that the image serves: `PORT/PROTOCOL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that stops the program; SIGTERM if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

impl KernelView {
    /// The error for a request that would move one of its names to another kernel.
    pub fn name_taken(&self, name: &str) -> ApiError {
        name_taken(name, "kernel", self.id.as_str(), &self.used_by)
    }
}

/// The error for a request that would move the name of an object to another one.
fn name_taken(name: &str, what: &str, id: &str, used_by: &[String]) -> ApiError {
    let users = match used_by {
        [] => String::new(),
        users => format!(", which is used by {}", users.join(", ")),
    };
    let text = format!("the name `{name}` refers to the {what} {id}{users}");
    ApiError::new(ErrorCode::NameTaken, text)
        .with_hint(Hint::ChooseAnotherName)
        .with_hint(Hint::ReplaceName)
}

impl ImageView {
    /// The error for a request that would move one of its names to another image.
    pub fn name_taken(&self, name: &str) -> ApiError {
        name_taken(name, "image", self.id.as_str(), &self.used_by)
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
    /// Source of the kernel.
    pub source: String,
    /// Allocated size in bytes, including modules.
    pub used_bytes: u64,
    /// Time of creation: RFC 3339, UTC.
    pub created_at: String,
    /// Names of the VMs that use the kernel.
    pub used_by: Vec<String>,
}

/// Builds an image from a built-in recipe, or pulls one from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePullRequest {
    /// Recipe, such as `debian`, or an image of a registry: `[HOST/]REPOSITORY[:TAG|@DIGEST]`.
    #[schema(pattern = "^[A-Za-z0-9\\[][A-Za-z0-9._:/@\\[\\]-]{0,254}$")]
    pub name: String,
    /// Build the image again, with current packages, even if one of the same recipe exists.
    #[serde(default)]
    pub refresh: bool,
}

/// Fetches a kernel by a built-in recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Recipe: `debian-cloud`.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
}

/// Builds a kernel by a built-in recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelBuildRequest {
    /// Recipe: `fast`.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
}

/// Imports a kernel from files of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelImportRequest {
    /// Absolute path of a Debian package, a bzImage or a vmlinux.
    pub path: ByteString,
    /// Absolute path of the folder with the modules of a bzImage or vmlinux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<ByteString>,
    /// Name of the kernel.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Move the name from another kernel.
    #[serde(default)]
    pub replace: bool,
}

/// Imports an image from a file or folder of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// Absolute path of a root file system: a tar archive, an ext4 or squashfs image, a qcow2 or
    /// raw disk with one ext4 file system, each optionally compressed, or a folder.
    pub path: ByteString,
    /// Name of the image.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Move the name from another image.
    #[serde(default)]
    pub replace: bool,
}

/// Query parameters of an import whose file is the body of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImageUpload {
    /// Name of the image.
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Move the name from another image.
    #[serde(default)]
    pub replace: bool,
}

/// Adds a name to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// The name.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Move the name from another image.
    #[serde(default)]
    pub replace: bool,
}

/// Makes an image of the root disk of a stopped VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCommitRequest {
    /// Name, id or unique prefix of the id of the VM.
    pub vm: String,
    /// Name of the image.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Move the name from another image.
    #[serde(default)]
    pub replace: bool,
}

/// Makes an image of a file of the host that stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRegisterRequest {
    /// Absolute path of an ext4 file system.
    pub rootfs: ByteString,
    /// The kernel that VMs of the image boot unless they ask for another; without it, the default
    /// kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<ImageKernel>,
    /// Name of the image.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Move the name from another image.
    #[serde(default)]
    pub replace: bool,
}

/// The kernel of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageKernel {
    /// The one that the image contains, with its modules.
    Contained,
    /// One of files of the host, which is copied into the store.
    Files {
        /// Absolute path of a Debian package, a bzImage or a vmlinux.
        path: ByteString,
        /// Absolute path of the folder with the modules of a bzImage or vmlinux.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modules: Option<ByteString>,
    },
}

/// Copies the file of a registered image into the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePromoteRequest {
    /// Name, id or unique prefix of the id.
    pub image: String,
}

/// Result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Deleted {
    /// Id of the object.
    pub id: String,
    /// Freed bytes.
    pub freed_bytes: u64,
    /// Remaining names, if only a name was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Whether an existing image of the recipe is built again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// Only if there is none, or the recipe has changed.
    IfOutdated,
    /// Always.
    Always,
}

/// Handling of a name that another image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenName {
    /// The request is refused.
    Refuse,
    /// The name moves to the new image.
    Replace,
}

impl TakenName {
    /// From the flag of a request.
    pub fn replacing(replace: bool) -> Self {
        if replace { Self::Replace } else { Self::Refuse }
    }
}

/// The default image.
pub const DEFAULT_IMAGE: &str = "debian";
/// The default kernel.
pub const DEFAULT_KERNEL: &str = "debian-cloud";

/// The kernel that is built from Debian's source.
pub const FAST_KERNEL: &str = "fast";

/// The kernel of a request that stands for the one that the image contains.
pub const OWN_KERNEL: &str = "image";

/// The name of the kernel that an image contains, in the store of kernels.
pub fn own_kernel_name(image: &str) -> String {
    format!("{OWN_KERNEL}-{image}")
}

/// Whether a name of a kernel is [`OWN_KERNEL`], or one of the kernels of images.
pub fn is_own_kernel_name(name: &str) -> bool {
    let is_id = |text: &str| text.parse::<ImageId>().is_ok();
    name == OWN_KERNEL
        || name
            .strip_prefix(OWN_KERNEL)
            .is_some_and(|rest| rest.strip_prefix('-').is_some_and(is_id))
}

/// The name that an image gets when its only name moves to another image: the lost name and the
/// first 8 digits of its id, at most 128 bytes. Never the name of an image of a registry.
pub fn spare_name(name: &str, id: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || "._-".contains(c) => c,
        _ => '-',
    };
    let name: String = name.trim_start_matches('[').chars().map(plain).take(119).collect();
    format!("{name}-{}", &id[..id.floor_char_boundary(8)])
}

/// Checks the name of an image or kernel: 1–128 of a–z, 0–9, `.`, `_`, `-`, starting with a letter
/// or digit.
pub fn is_ref_name(name: &str) -> bool {
    let first_ok =
        name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first_ok
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}
