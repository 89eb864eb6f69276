//! Errors of images.

use std::path::PathBuf;

use super::{OciError, UnsupportedFile, recipe};
use crate::ext4::Ext4Error;
use crate::fetch::FetchError;
use crate::kernels::KernelError;
use crate::registry::RegistryError;
use crate::trust::TrustError;

/// Errors of creating and reading images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// An error that all stored objects share.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No recipe has this name.
    #[error("there is no recipe for an image `{name}`, only `{}`", recipe::DEBIAN)]
    UnknownRecipe {
        /// The name.
        name: String,
    },
    /// An invalid archive.
    #[error("cannot create an image from `{}`", path.display())]
    BadArchive {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Ext4Error,
    },
    /// A container image that cannot be used.
    #[error("cannot create an image from `{}`", path.display())]
    Container {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: OciError,
    },
    /// A pull from a registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A catalog or a key cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The kernel that was given to an image cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An archive without a root file system.
    #[error("`{}` is no root file system: it has neither /bin, /sbin, /usr nor any program",
        path.display())]
    NotARootFs {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not an archive of a root file system.
    #[error("`{}` is {}", path.display(), found.what)]
    UnsupportedFile {
        /// The file.
        path: PathBuf,
        /// Its type.
        found: UnsupportedFile,
    },
    /// A root disk that cannot be captured.
    #[error("the root disk `{}` cannot become an image: {why}", path.display())]
    UnusableDisk {
        /// The disk.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A file that cannot be used as it is.
    #[error("`{}` cannot be registered: {why}", path.display())]
    NotRegistrable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Another image has the name.
    #[error("the name `{name}` refers to the image {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// Id of the image that has it.
        owner: String,
    },
    /// An error of a worker process.
    #[error("{0}")]
    Worker(Box<banger_api::ApiError>),
    /// The file changed during the conversion.
    #[error("`{}` changed while it was read", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// The user has no subordinate ids for a user namespace.
    #[error("`{}` has no ids for the user `{user}`, which mmdebstrap needs", file.display())]
    NoSubordinateIds {
        /// /etc/subuid or /etc/subgid.
        file: PathBuf,
        /// Name or number.
        user: String,
    },
}
