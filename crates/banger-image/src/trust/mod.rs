//! Signatures of what is fetched: catalogs signed with minisign, and images of registries signed
//! with cosign. Both are verified with keys that the user has configured (docs/trust.md).
//!
//! ```text
//! minisign   signatures of files
//! catalog    lists of images and kernels with their digests and addresses
//! key        public keys for signatures of images
//! cosign     the documents that cosign stores, and what they sign
//! policy     which images must be signed, by whom
//! ```

pub mod catalog;
pub mod cosign;
pub mod key;
pub mod minisign;
mod policy;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use banger_api::images::ImageSignature;

pub use catalog::{Listed, Wanted};
pub use key::PublicKey;
pub use policy::{Requirement, Rule};

/// `[trust]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustSettings {
    /// Catalogs; the signature of each is in a file beside it, with `.minisig` added to its name.
    pub catalogs: Vec<PathBuf>,
    /// Files with public keys of minisign; a catalog must be signed by one of them.
    pub keys: Vec<PathBuf>,
    /// What is demanded of images of registries: the first rule that fits.
    pub registries: Vec<Rule>,
}

/// Errors of signatures and of the files of `[trust]`.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configured file cannot be used: a key or a catalog.
    #[error("`{}` {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The defect.
        why: String,
    },
    /// A file is not what was signed.
    #[error("`{}` is refused: {why}", path.display())]
    BadSignature {
        /// The file.
        path: PathBuf,
        /// The defect.
        why: String,
    },
    /// A catalog has the name for other architectures only.
    #[error("`{}` has `{name}` for {} only", path.display(), architectures.join(", "))]
    OtherArchitecture {
        /// The catalog.
        path: PathBuf,
        /// The name.
        name: String,
        /// What it offers.
        architectures: Vec<String>,
    },
}

/// Reads a file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, TrustError> {
    let mut content = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut content));
    read.map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    if content.len() as u64 > limit {
        let why = format!("is larger than {} KiB", limit >> 10);
        return Err(TrustError::Unusable { path: path.to_owned(), why });
    }
    Ok(content)
}

/// As [`read`], as text.
fn read_text(path: &Path, limit: u64) -> Result<String, TrustError> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| TrustError::Unusable { path: path.to_owned(), why: "is not text".into() })
}

impl TrustSettings {
    /// The entry of the first catalog that has the name. All catalogs are verified first.
    ///
    /// # Errors
    /// A key or catalog that cannot be used; a signature that does not fit.
    pub fn find(&self, wanted: Wanted, name: &str) -> Result<Option<Listed>, TrustError> {
        if self.catalogs.is_empty() {
            return Ok(None);
        }
        let keys = minisign::Keys::load(&self.keys)?;
        let catalogs = self.catalogs.iter().map(|path| catalog::Catalog::load(path, &keys));
        let catalogs = catalogs.collect::<Result<Vec<_>, _>>()?;
        let mut other = None;
        for catalog in catalogs {
            match catalog.find(wanted, name) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => other = other.or(Some(error)),
            }
        }
        other.map_or(Ok(None), Err)
    }

    /// Reads all configured files.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn check(&self) -> Result<(), TrustError> {
        let keys = minisign::Keys::load(&self.keys)?;
        self.catalogs.iter().try_for_each(|path| catalog::Catalog::load(path, &keys).map(drop))?;
        self.registries.iter().try_for_each(|rule| rule.load().map(drop))
    }

    /// The first rule that fits an image, as `HOST/REPOSITORY`.
    pub fn rule(&self, repository: &str) -> Option<&Rule> {
        self.registries.iter().find(|rule| rule.fits(repository))
    }
}

/// The signature of a catalog, as the record of an image has it.
fn of_catalog(path: &Path, key: &str) -> ImageSignature {
    ImageSignature {
        scheme: banger_api::images::SignatureScheme::Minisign,
        key: key.to_owned(),
        signed: path.display().to_string(),
    }
}
