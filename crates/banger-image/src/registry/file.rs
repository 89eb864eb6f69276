//! Files of catalogs: downloaded as the layers of images are, into the same cache.

use std::path::Path;

use super::download::{BlobSource, Wanted, download};
use super::http::Http;
use super::{Cache, RegistryError, Settings, runtime};
use crate::fetch::{Progress, need_space};
use crate::trust::Listed;

/// Downloads a file unless the cache has it, and gives it the name `to`.
///
/// # Errors
/// The server's; another content than the digest's; no space; cancellation.
pub fn fetch(
    listed: &Listed,
    cache: &Cache,
    settings: &Settings,
    to: &Path,
    progress: &dyn Progress,
) -> Result<(), RegistryError> {
    let wanted = Wanted { digest: listed.digest.clone(), bytes: listed.bytes };
    let host = listed.url.host_str().unwrap_or_default();
    let host = listed.url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let http = Http::new(&host, &settings.proxy, &settings.ca, settings.timing)?.of_server();
    cache.create()?;
    need_space(cache.folder(), listed.bytes)?;
    progress.stage("download the file");
    let done = std::cell::Cell::new(0_i64);
    let count = |bytes: i64| {
        done.set(done.get().saturating_add(bytes));
        progress.bytes(u64::try_from(done.get()).unwrap_or_default(), Some(listed.bytes));
    };
    let runtime = runtime()?;
    let from = BlobSource::Address { http: &http, url: &listed.url };
    let downloaded = runtime.block_on(download(&from, cache, (&wanted, to), &count, progress));
    // Does not wait for the resolver of the system, which cannot be cancelled.
    runtime.shutdown_background();
    downloaded
}
