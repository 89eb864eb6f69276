//! Catalogs: signed lists of images and kernels by name, with digest, size and address.

use std::path::{Path, PathBuf};

use banger_api::images::{ImageSignature, is_ref_name};
use reqwest::Url;
use serde::Deserialize;

use super::minisign::{Keys, Verified};
use super::{TrustError, of_catalog};
use crate::images::Digest;
use crate::registry::{MAX_LAYER, is_local};

/// Largest catalog in bytes.
const CATALOG_BYTES: u64 = 4 << 20;
/// The version of the format that is read.
const VERSION: u32 = 1;
/// Names of this architecture: the kernel's, and that of Debian and OCI.
const ARCHITECTURES: [&str; 2] = ["x86_64", "amd64"];

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// An image.
    Image,
    /// A kernel.
    Kernel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    images: Vec<Entry>,
    #[serde(default)]
    kernels: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    arch: String,
    sha256: String,
    bytes: u64,
    url: String,
}

/// A verified catalog.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    key: String,
    document: Document,
}

/// A file that a catalog lists.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// Its address: https, or http on this host.
    pub url: Url,
    /// The catalog's signature.
    pub signature: ImageSignature,
}

impl Catalog {
    /// Reads and verifies a catalog, and checks all its entries.
    ///
    /// # Errors
    /// A signature that does not fit; an entry that makes no sense.
    pub fn load(path: &Path, keys: &Keys) -> Result<Self, TrustError> {
        let Verified { content, key } = keys.verify(path, CATALOG_BYTES)?;
        let unusable = |why: String| TrustError::Unusable { path: path.to_owned(), why };
        let document: Document = serde_json::from_slice(&content)
            .map_err(|error| unusable(format!("is no catalog: {error}")))?;
        if document.version != VERSION {
            return Err(unusable(format!(
                "is a catalog of version {}; this version of banger reads {VERSION}",
                document.version
            )));
        }
        for entry in document.images.iter().chain(&document.kernels) {
            let name = banger_api::excerpt(&entry.name);
            entry.parse().map_err(|why| unusable(format!("has the entry `{name}`, {why}")))?;
        }
        Ok(Self { path: path.to_owned(), key, document })
    }

    /// The entry with this name for this architecture.
    ///
    /// # Errors
    /// The name is there for other architectures only.
    pub fn find(&self, wanted: Wanted, name: &str) -> Result<Option<Listed>, TrustError> {
        let entries = match wanted {
            Wanted::Image => &self.document.images,
            Wanted::Kernel => &self.document.kernels,
        };
        let named: Vec<&Entry> = entries.iter().filter(|entry| entry.name == name).collect();
        let here = named.iter().find(|entry| ARCHITECTURES.contains(&entry.arch.as_str()));
        if let Some((digest, url)) = here.and_then(|entry| entry.parse().ok())
            && let Some(entry) = here
        {
            let signature = of_catalog(&self.path, &self.key);
            return Ok(Some(Listed { digest, bytes: entry.bytes, url, signature }));
        }
        if named.is_empty() {
            return Ok(None);
        }
        let architectures = named.iter().map(|entry| banger_api::excerpt(&entry.arch)).collect();
        let (path, name) = (self.path.clone(), name.to_owned());
        Err(TrustError::OtherArchitecture { path, name, architectures })
    }
}

impl Entry {
    fn parse(&self) -> Result<(Digest, Url), String> {
        if !is_ref_name(&self.name) {
            return Err("which is no name of an image or kernel".into());
        }
        let digest = Digest::of_hex(&self.sha256);
        let digest = digest.ok_or("whose `sha256` is not 64 lowercase hexadecimal digits")?;
        if self.bytes == 0 || self.bytes > MAX_LAYER {
            return Err(format!("whose length of {} bytes is not possible", self.bytes));
        }
        let url = Url::parse(&self.url).map_err(|error| format!("whose `url` is none: {error}"))?;
        let is_encrypted = match url.scheme() {
            "https" => url.host_str().is_some(),
            "http" => url.host_str().is_some_and(is_local),
            _ => false,
        };
        if !is_encrypted || url.username() != "" || url.password().is_some() {
            return Err("whose `url` is not https without a login, or http on this host".into());
        }
        Ok((digest, url))
    }
}
