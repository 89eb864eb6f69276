//! Downloads a blob into the cache: continued after an interruption, checked by its digest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::RegistryError;
use super::cache::{Cache, Whole};
use super::http::Http;
use super::session::Session;
use crate::fetch::{FetchError, PathContext, Progress};
use crate::images::{Digest, OciError};

/// Attempts without a new byte before a download fails.
const ATTEMPTS: u32 = 4;
/// Interval at which a wait for another download checks for its end.
const LOOK: Duration = Duration::from_millis(100);

/// A blob to download.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its digest.
    pub digest: Digest,
    /// Its length, as the manifest says.
    pub bytes: u64,
}

/// Where a blob comes from.
pub enum BlobSource<'a> {
    /// A repository of a registry.
    Repository(&'a Session),
    /// Another server.
    Address {
        /// The connection.
        http: &'a Http,
        /// The address.
        url: &'a Url,
    },
}

impl BlobSource<'_> {
    fn http(&self) -> &Http {
        match self {
            Self::Repository(session) => &session.http,
            Self::Address { http, .. } => http,
        }
    }

    /// What errors call a blob of it.
    fn name(&self, digest: &Digest) -> String {
        match self {
            Self::Repository(_) => digest.to_string(),
            Self::Address { url, .. } => url.to_string(),
        }
    }

    /// The answer with a blob from byte `from` on; status 200 means from its beginning.
    async fn blob(
        &self,
        digest: &Digest,
        from: u64,
        progress: &dyn Progress,
    ) -> Result<Response, RegistryError> {
        let (http, url) = match self {
            Self::Repository(session) => return session.blob(digest, from, progress).await,
            Self::Address { http, url } => (http, *url),
        };
        let mut request = http.get(url.clone());
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = http.send(request, progress).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            status => Err(RegistryError::Status {
                host: http.server(),
                status: status.as_u16(),
                message: format!("for `{url}`"),
            }),
        }
    }
}

/// Receives the number of new bytes; negative if some are thrown away.
pub type Count<'a> = &'a (dyn Fn(i64) + 'a);

/// Downloads a blob unless the cache has it, and gives it the further name `to`.
///
/// # Errors
/// The registry's; another content than the digest's; no space; cancellation.
pub async fn download(
    from: &BlobSource<'_>,
    cache: &Cache,
    (wanted, to): (&Wanted, &Path),
    count: Count<'_>,
    progress: &dyn Progress,
) -> Result<(), RegistryError> {
    let part = loop {
        match cache.hold(&wanted.digest)? {
            Whole::Held(file) if is_intact(cache, wanted, &file)? => {
                cache.link(&wanted.digest, to)?;
                cache.touch(&wanted.digest);
                count(signed(wanted.bytes));
                return Ok(());
            }
            Whole::Held(_) | Whole::Absent => {
                if let Some(part) = cache.lock_part(&wanted.digest)? {
                    break part;
                }
            }
            Whole::Busy => {}
        }
        progress.go_on()?;
        tokio::time::sleep(LOOK).await;
    };
    receive(from, cache, (wanted, to), part, count, progress).await
}

/// Whether a file of the cache is intact; a damaged one is removed.
fn is_intact(cache: &Cache, wanted: &Wanted, file: &File) -> Result<bool, RegistryError> {
    let path = cache.whole(&wanted.digest);
    let hex = crate::fetch::digest_of_file(file).at("read", &path)?;
    if hex == wanted.digest.hex() {
        return Ok(true);
    }
    std::fs::remove_file(&path).at("remove", &path)?;
    Ok(false)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// An unfinished download.
struct Part<'a> {
    file: File,
    path: std::path::PathBuf,
    hash: Sha256,
    have: u64,
    wanted: &'a Wanted,
    count: Count<'a>,
}

impl Part<'_> {
    /// Reads what an earlier download has left.
    fn resume(&mut self) -> Result<(), FetchError> {
        self.file.seek(SeekFrom::Start(0)).at("read", &self.path)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match self.file.read(&mut buffer).at("read", &self.path)? {
                0 => break,
                read => {
                    self.hash.update(&buffer[..read]);
                    self.have += read as u64;
                }
            }
        }
        (self.count)(signed(self.have));
        if self.have > self.wanted.bytes { self.restart() } else { Ok(()) }
    }

    /// Throws everything away.
    fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).at("write", &self.path)?;
        self.file.seek(SeekFrom::Start(0)).at("write", &self.path)?;
        (self.count)(-signed(self.have));
        self.hash = Sha256::new();
        self.have = 0;
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).at("write", &self.path)?;
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        (self.count)(signed(bytes.len() as u64));
        Ok(())
    }

    fn is_intact(&self) -> bool {
        let hash = self.hash.clone().finalize();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        hex == self.wanted.digest.hex()
    }
}

async fn receive(
    from: &BlobSource<'_>,
    cache: &Cache,
    (wanted, to): (&Wanted, &Path),
    file: File,
    count: Count<'_>,
    progress: &dyn Progress,
) -> Result<(), RegistryError> {
    let path = cache.part(&wanted.digest);
    let mut part = Part { file, path, hash: Sha256::new(), have: 0, wanted, count };
    part.resume()?;
    let (mut attempt, mut resumed) = (0, part.have > 0);
    loop {
        let before = part.have;
        let received = match part.have == wanted.bytes {
            true => Ok(()),
            false => stream(from, &mut part, progress).await,
        };
        match received {
            Ok(()) if part.is_intact() => {
                cache.publish(&wanted.digest, &part.file)?;
                return Ok(cache.link(&wanted.digest, to)?);
            }
            // What was left on the disk may be damaged.
            Ok(()) if resumed => {
                part.restart()?;
                resumed = false;
            }
            Ok(()) => {
                part.restart()?;
                let digest = &wanted.digest;
                let (name, expected) = (from.name(digest), digest.hex().to_owned());
                return Err(OciError::DigestMismatch { name, expected }.into());
            }
            Err(error) if error.is_transient() => {
                attempt = if part.have > before { 1 } else { attempt + 1 };
                if attempt >= ATTEMPTS {
                    return Err(error);
                }
                progress.log(&format!("{error}; trying again"));
                pause(from.http().timing.retry * 2_u32.pow(attempt - 1), progress).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn pause(time: Duration, progress: &dyn Progress) -> Result<(), RegistryError> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        progress.go_on()?;
        tokio::time::sleep(LOOK.min(time)).await;
    }
    Ok(())
}

/// Receives what is missing.
async fn stream(
    from: &BlobSource<'_>,
    part: &mut Part<'_>,
    progress: &dyn Progress,
) -> Result<(), RegistryError> {
    let (wanted, http) = (part.wanted, from.http());
    let protocol = |why: String| RegistryError::Protocol { host: http.server(), why };
    let mut response = from.blob(&wanted.digest, part.have, progress).await?;
    let starts_at = |response: &Response| {
        let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
        range.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok()
    };
    match response.status() {
        StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(part.have) => {}
        StatusCode::OK => part.restart()?,
        StatusCode::RANGE_NOT_SATISFIABLE if part.have > 0 => {
            part.restart()?;
            response = from.blob(&wanted.digest, 0, progress).await?;
        }
        _ => return Err(protocol(format!("sends another part of {} than asked", wanted.digest))),
    }
    let missing = wanted.bytes - part.have;
    if let Some(length) = response.content_length()
        && length != missing
    {
        let digest = &wanted.digest;
        return Err(protocol(format!(
            "sends {length} bytes of {digest}, of which {missing} are missing by the manifest"
        )));
    }
    let (mut since, mut received) = (Instant::now(), 0);
    while let Some(chunk) = http.chunk(&mut response, progress).await? {
        if part.have + chunk.len() as u64 > wanted.bytes {
            part.restart()?;
            let (digest, bytes) = (&wanted.digest, wanted.bytes);
            return Err(protocol(format!(
                "sends more of {digest} than the {bytes} bytes that the manifest says"
            )));
        }
        part.add(&chunk)?;
        progress.go_on()?;
        received += chunk.len() as u64;
        if since.elapsed() >= http.timing.idle {
            if received < http.timing.least_bytes {
                return Err(http.stalled(http.timing.idle));
            }
            (since, received) = (Instant::now(), 0);
        }
    }
    if part.have < wanted.bytes {
        let why = "the connection ended before the download was complete".to_owned();
        return Err(RegistryError::Unreachable { host: http.server(), why });
    }
    Ok(())
}
