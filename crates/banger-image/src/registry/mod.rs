//! Pulls images from registries (OCI distribution specification 1.1, Docker's registry API 2).
//!
//! ```text
//! credentials   the user's logins, by Docker's configuration
//! http          TLS, proxies, redirects, limits
//! auth          basic and bearer authentication
//! session       requests to one repository
//! cache         downloaded files by digest
//! download      one file, continued and checked
//! signatures    signatures of cosign beside an image
//! file          files of catalogs, downloaded in the same way
//! ```
//!
//! A pull makes an OCI layout of the downloaded files, which is then imported as any other
//! ([`crate::images`]).

mod auth;
mod cache;
mod credentials;
mod download;
mod error;
mod file;
mod http;
mod session;
mod signatures;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use banger_api::container_ref::ContainerRef;
use futures_util::{StreamExt, TryStreamExt};

pub use cache::{Cache, Cached, Removal};
pub use error::{RegistryError, Server};
pub use file::fetch;
pub use http::{Timing, is_local};

use crate::ca::CaSettings;
use crate::fetch::{FetchError, PathContext, Progress, Tools, need_space};
use crate::images::manifest::{self, Manifest, Parsed};
use crate::images::{Digest, OciError};
use crate::proxy::ProxySettings;
use download::{BlobSource, Wanted, download};
use session::{Document, Session};

/// Maximum number of indexes that lead to a manifest.
const MAX_DEPTH: usize = 4;
/// Number of layers that are downloaded at the same time.
const PARALLEL: usize = 4;
/// Largest layer in bytes.
pub const MAX_LAYER: u64 = 256 << 30;

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[proxy]`; without any, the proxies of the environment.
    pub proxy: ProxySettings,
    /// `[ca]`.
    pub ca: CaSettings,
    /// Docker's configuration; by default that of the environment.
    pub docker_config: Option<PathBuf>,
    /// Time limits.
    pub timing: Timing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy: ProxySettings::default(),
            ca: CaSettings::default(),
            docker_config: credentials::config_path(),
            timing: Timing::default(),
        }
    }
}

/// An image of a registry, found and not yet downloaded.
pub struct Found {
    /// Digest of the manifest for the platform of the guests.
    pub digest: Digest,
    /// Digests of the documents that lead to the manifest, which is the last.
    digests: Vec<Digest>,
    session: Session,
    manifest: Manifest,
    document: Vec<u8>,
}

/// A runtime for one pull, on the thread that calls it.
///
/// # Errors
/// No resources.
pub fn runtime() -> Result<tokio::runtime::Runtime, FetchError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.at("start the connections to", Path::new("the registry"))
}

/// Asks a registry which image a reference is.
///
/// # Errors
/// Not found; no access; not an image for this platform; the registry's errors; cancellation.
pub async fn find(
    wanted: &ContainerRef,
    settings: &Settings,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Found, RegistryError> {
    let config = settings.docker_config.as_deref();
    let credentials = credentials::find(config, wanted.host(), tools, progress)?;
    let http = http::Http::new(wanted.host(), &settings.proxy, &settings.ca, settings.timing)?;
    let session = Session::new(http, wanted, credentials, progress).await?;
    let mut version = wanted.version();
    let mut digests = Vec::new();
    for _ in 0..MAX_DEPTH {
        let Document { digest, bytes } = session.document(&version, progress).await?;
        digests.push(digest.clone());
        match manifest::parse("the manifest", &bytes)? {
            Parsed::Index(entry) => version = entry.digest()?.to_string(),
            Parsed::Manifest(manifest) => {
                return Ok(Found { digest, digests, session, manifest, document: bytes });
            }
        }
    }
    Err(OciError::Unsupported { what: "an index in an index in an index".into() }.into())
}

impl Found {
    /// Downloads what the cache does not have, and makes an OCI layout of it in the new folder
    /// `layout`.
    ///
    /// # Errors
    /// The registry's; no space; cancellation.
    pub async fn pull(
        &self,
        cache: &Cache,
        layout: &Path,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        cache.create()?;
        let mut all = Vec::new();
        for part in self.manifest.layers.iter().chain([&self.manifest.config]) {
            let wanted = Wanted { digest: part.digest()?, bytes: part.size };
            if wanted.bytes > MAX_LAYER {
                let what = format!("the layer {} of {} bytes", wanted.digest, wanted.bytes);
                return Err(OciError::Unsupported { what }.into());
            }
            if !all.iter().any(|known: &Wanted| known.digest == wanted.digest) {
                all.push(wanted);
            }
        }
        if self.manifest.config.size > manifest::DOCUMENT_BYTES {
            return Err(OciError::DocumentTooLarge { name: "the configuration".into() }.into());
        }
        let total = all.iter().fold(0_u64, |sum, wanted| sum.saturating_add(wanted.bytes));
        let have = |wanted: &Wanted| {
            let paths = [cache.whole(&wanted.digest), cache.part(&wanted.digest)];
            paths.iter().find_map(|path| fs::metadata(path).ok()).map_or(0, |meta| meta.len())
        };
        let there = all.iter().map(have).sum::<u64>();
        // The root disk takes at least as much as the compressed layers.
        need_space(cache.folder(), total.saturating_sub(there).saturating_add(total))?;
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).at("make the folder", &blobs)?;
        progress.stage("download the layers");
        let done = Cell::new(0_i64);
        let count = |bytes: i64| {
            done.set(done.get().saturating_add(bytes));
            progress.bytes(u64::try_from(done.get()).unwrap_or_default(), Some(total));
        };
        let count: download::Count<'_> = &count;
        let from = BlobSource::Repository(&self.session);
        let one = async |wanted: &Wanted| {
            let to = blobs.join(wanted.digest.hex());
            download(&from, cache, (wanted, &to), count, progress).await
        };
        let downloads = futures_util::stream::iter(&all).map(one).buffer_unordered(PARALLEL);
        let done = downloads.try_collect::<Vec<()>>().await;
        if let Err(RegistryError::Fetch(FetchError::DiskFull { .. })) = &done {
            // What is on the disk is of no use there, and the user needs the space.
            for wanted in &all {
                let part = cache.part(&wanted.digest);
                let name = part.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                // The first error is reported.
                let _ = cache.remove_file(name);
            }
        }
        done?;
        Ok(self.lay_out(layout, &blobs)?)
    }

    fn lay_out(&self, layout: &Path, blobs: &Path) -> Result<(), FetchError> {
        let write = |path: PathBuf, text: &[u8]| fs::write(&path, text).at("write", &path);
        write(blobs.join(self.digest.hex()), &self.document)?;
        write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let (kind, size) = (manifest::MANIFESTS[0], self.document.len());
        let entry = format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{size}}}"#, self.digest);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        write(layout.join("index.json"), index.as_bytes())
    }
}
