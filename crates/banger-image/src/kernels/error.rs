//! Errors of kernels.

use std::path::PathBuf;

use banger_api::images::FAST_KERNEL;

use super::{DEBIAN, KernelFormatError, ModulesError};
use crate::ext4::Ext4Error;
use crate::fetch::FetchError;
use crate::registry::RegistryError;
use crate::trust::TrustError;

/// Errors of kernels.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An error of the store.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A catalog or a key cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A file of a catalog cannot be fetched.
    #[error(transparent)]
    Download(#[from] RegistryError),
    /// There is no recipe with this name.
    #[error("there is no recipe for a kernel `{name}`, only `{DEBIAN}`")]
    UnknownRecipe {
        /// The name.
        name: String,
    },
    /// The host's package sources do not contain the package.
    #[error("the package `{package}` is not in the package sources of this host")]
    NoPackage {
        /// Its name.
        package: &'static str,
    },
    /// An invalid package.
    #[error("the package `{}` cannot be used: {why}", path.display())]
    BadPackage {
        /// The file.
        path: PathBuf,
        /// The defect.
        why: String,
    },
    /// A kernel file without a release.
    #[error("the kernel `{}` does not contain its release", path.display())]
    NoRelease {
        /// The file.
        path: PathBuf,
    },
    /// A folder of modules for a package, which contains its modules.
    #[error("the package `{}` contains its modules", path.display())]
    SecondModules {
        /// The package.
        path: PathBuf,
    },
    /// A folder without the modules of the kernel.
    #[error("`{}` has no modules of the kernel {release}", path.display())]
    OtherModules {
        /// The folder.
        path: PathBuf,
        /// `uname -r` of the kernel.
        release: String,
    },
    /// Another kernel has the name.
    #[error("the name `{name}` refers to the kernel {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// Id of the kernel.
        owner: String,
    },
    /// A kernel file that cannot be booted.
    #[error("the kernel `{}` cannot be used", path.display())]
    BadKernel {
        /// The file.
        path: PathBuf,
        /// The defect.
        #[source]
        source: KernelFormatError,
    },
    /// As [`Self::BadKernel`], without the path.
    #[error(transparent)]
    Format(#[from] KernelFormatError),
    /// The kernel lacks a feature that guests need.
    #[error("kernel `{release}` cannot boot a guest")]
    Modules {
        /// `uname -r`.
        release: String,
        /// The missing feature.
        #[source]
        source: ModulesError,
    },
    /// There is no recipe that builds such a kernel.
    #[error("there is no recipe that builds a kernel `{name}`, only `{FAST_KERNEL}`")]
    NoBuild {
        /// The name.
        name: String,
    },
    /// Programs and headers that build kernels are not installed.
    #[error("a kernel cannot be built without these packages: {}", packages.join(", "))]
    MissingBuildTools {
        /// Names of Debian's packages.
        packages: Vec<String>,
    },
    /// The source cannot be configured for guests.
    #[error("this version of Linux does not have {}", options.join(", "))]
    MissingOptions {
        /// `CONFIG_X=y`.
        options: Vec<String>,
    },
    /// An image without a kernel.
    #[error("the image `{image}` has no kernel of its own")]
    NoKernelInImage {
        /// Its name.
        image: String,
    },
    /// A kernel of an image that cannot boot a guest.
    #[error("the kernel of the image `{image}` cannot be used")]
    OfImage {
        /// Name of the image.
        image: String,
        /// The defect.
        #[source]
        source: Box<KernelError>,
    },
    /// The file system of an image cannot be read.
    #[error("the image's disk `{}` cannot be read", path.display())]
    BadImage {
        /// The disk.
        path: PathBuf,
        /// The defect.
        #[source]
        source: Ext4Error,
    },
    /// The modules disk cannot be created.
    #[error("cannot make the modules disk")]
    Disk(#[source] Ext4Error),
}

impl KernelError {
    /// The same as an error of the kernel in an image.
    #[must_use]
    pub fn of_image(self, image: &str) -> Self {
        match self {
            Self::Fetch(_) | Self::NoKernelInImage { .. } | Self::Disk(_) => self,
            source => Self::OfImage { image: image.to_owned(), source: Box::new(source) },
        }
    }
}

impl From<Ext4Error> for KernelError {
    fn from(error: Ext4Error) -> Self {
        match error {
            Ext4Error::Fetch(error) => Self::Fetch(error),
            other => Self::Disk(other),
        }
    }
}
