//! Failures of images.

use std::path::PathBuf;

use super::{Foreign, recipe};
use crate::ext4::Ext4Error;
use crate::fetch::FetchError;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// What everything stored can suffer from.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No recipe has this name.
    #[error("there is no recipe for an image `{name}`, only `{}`", recipe::DEBIAN)]
    UnknownRecipe {
        /// The name.
        name: String,
    },
    /// An archive that cannot be used.
    #[error("`{}` cannot be made an image", path.display())]
    BadArchive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Ext4Error,
    },
    /// An archive of something else.
    #[error("`{}` is no root file system: it has neither /bin, /sbin, /usr nor any program",
        path.display())]
    NotARootFs {
        /// The file.
        path: PathBuf,
    },
    /// A file of another kind than a root file system's archive.
    #[error("`{}` is {}", path.display(), found.what)]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its kind.
        found: Foreign,
    },
    /// Another image has the name.
    #[error("the name `{name}` refers to the image {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// Id of the image that has it.
        owner: String,
    },
    /// A worker's failure, as it is shown.
    #[error("{0}")]
    Worker(Box<banger_api::ApiError>),
    /// A file that changed while it was read.
    #[error("`{}` changed while it was read", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// An ordinary user without ids for a user namespace.
    #[error("`{}` has no ids for the user `{user}`, which mmdebstrap needs", file.display())]
    NoSubordinateIds {
        /// /etc/subuid or /etc/subgid.
        file: PathBuf,
        /// Name or number.
        user: String,
    },
}
