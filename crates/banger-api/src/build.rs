//! Images built in a temporary VM: the request, and the inputs that are recorded with the image.

use serde::{Deserialize, Serialize};

use crate::ByteString;
use crate::error::{ApiError, ErrorCode};
use crate::ids::ImageId;
use crate::limits::{self, Sizes};

/// Maximum length of a provisioning script in bytes.
pub const MAX_SCRIPT: usize = 512 * 1024;
/// Maximum number of packages of a build.
pub const MAX_PACKAGES: usize = 512;
/// Maximum length of the name of a package, with a version, in bytes.
pub const MAX_PACKAGE_NAME: usize = 256;
/// Maximum number of copied files and folders of a build.
pub const MAX_COPIES: usize = 128;

/// Builds an image in a temporary VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBuildRequest {
    /// Name of the new image.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub name: String,
    /// Name or id of the image to begin with, or a built-in recipe.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub from: String,
    /// Files and folders to copy before anything else; at most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 128)]
    pub copies: Vec<BuildCopy>,
    /// Packages to install with the package manager of the image; at most 512.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 512)]
    pub packages: Vec<String>,
    /// Script to run as root, last: its content, of at most 512 KiB. Without a `#!` line it is run
    /// by `/bin/sh -e`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 524288)]
    pub script: Option<String>,
    /// Virtual size of the root disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::root_disk_schema)]
    pub root_bytes: Option<u64>,
    /// Build again even if an image with the same inputs exists.
    #[serde(default)]
    pub no_cache: bool,
    /// Keep the VM if the build fails.
    #[serde(default)]
    pub keep: bool,
    /// Move the name from another image.
    #[serde(default)]
    pub replace: bool,
}

/// A file or folder of the host to copy into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildCopy {
    /// Absolute path on the daemon's host.
    pub source: ByteString,
    /// Absolute path in the guest; in a folder that exists, the copy keeps its name.
    pub target: ByteString,
}

impl ImageBuildRequest {
    /// Checks every value that can be checked without querying the host.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the value.
    pub fn check(&self) -> Result<(), ApiError> {
        let bad = |text: String| Err(ApiError::new(ErrorCode::BadRequest, text));
        let sizes = Sizes { root_bytes: self.root_bytes, ..Sizes::default() };
        if let Err(error) = sizes.check() {
            return bad(error.to_string());
        }
        if let Some(script) = &self.script {
            if script.len() > MAX_SCRIPT {
                return bad(format!(
                    "a script of {} bytes: it has at most {MAX_SCRIPT}",
                    script.len()
                ));
            }
            if script.contains('\0') {
                return bad("the script is no text: it contains a null byte".into());
            }
        }
        if self.packages.len() > MAX_PACKAGES {
            return bad(format!("{} packages: at most {MAX_PACKAGES}", self.packages.len()));
        }
        if let Some(name) = self.packages.iter().find(|name| !is_package(name)) {
            return bad(format!("`{}` is not a name of a package", crate::excerpt(name)));
        }
        if self.copies.len() > MAX_COPIES {
            return bad(format!("{} copies: at most {MAX_COPIES}", self.copies.len()));
        }
        for copy in &self.copies {
            for path in [&copy.source, &copy.target] {
                if !path.as_path().is_absolute() {
                    let shown = crate::excerpt(&path.to_string_lossy());
                    return bad(format!("`{shown}` is not an absolute path"));
                }
            }
        }
        Ok(())
    }
}

/// Whether a text can be given to a package manager as a package: a name with a version or an
/// architecture, or the path of a package file.
pub fn is_package(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'/')
        && name.len() <= MAX_PACKAGE_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._:=~/@<>^*".contains(&byte))
}

/// Inputs of an image that was built, or captured from a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildInputs {
    /// Id of the image it began with.
    pub base: ImageId,
    /// Name of that image in the request.
    pub base_name: String,
    /// What was copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopiedInput>,
    /// Packages in the request, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// SHA-256 of the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_sha256: Option<String>,
    /// Virtual size of the root disk in bytes.
    pub root_bytes: u64,
}

/// A copied file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CopiedInput {
    /// Path in the guest.
    pub target: ByteString,
    /// SHA-256 over names, kinds, modes, link targets and contents.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ImageBuildRequest {
        ImageBuildRequest { name: "dev".into(), from: "debian".into(), ..Default::default() }
    }

    #[test]
    fn packages_are_names_not_options() {
        for good in ["gcc", "libc6:i386", "vim=2:9.0.1-1", "/tmp/x.deb", "g++", "py3-pip~edge"] {
            assert!(is_package(good), "{good}");
        }
        for bad in ["", "-y", "--allow-unauthenticated", "a b", "a;b", "a\nb", "$(x)", "ä"] {
            assert!(!is_package(bad), "{bad}");
        }
    }

    #[test]
    fn values_are_checked() {
        request().check().unwrap();
        let copy =
            |source: &str, target: &str| BuildCopy { source: source.into(), target: target.into() };
        let bad = [
            ImageBuildRequest { script: Some("x".repeat(MAX_SCRIPT + 1)), ..request() },
            ImageBuildRequest { script: Some("a\0b".into()), ..request() },
            ImageBuildRequest { packages: vec!["-y".into()], ..request() },
            ImageBuildRequest { packages: vec!["a".into(); MAX_PACKAGES + 1], ..request() },
            ImageBuildRequest { copies: vec![copy("x", "/x")], ..request() },
            ImageBuildRequest { copies: vec![copy("/x", "x")], ..request() },
            ImageBuildRequest { copies: vec![copy("/x", "/x"); MAX_COPIES + 1], ..request() },
            ImageBuildRequest { root_bytes: Some(0), ..request() },
        ];
        for request in bad {
            assert_eq!(request.check().unwrap_err().code, ErrorCode::BadRequest, "{request:?}");
        }
    }
}
