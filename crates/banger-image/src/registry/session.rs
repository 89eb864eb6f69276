//! Requests to one repository of a registry (OCI distribution specification 1.1, "Pull").

use banger_api::container_ref::ContainerRef;
use reqwest::header::{ACCEPT, LOCATION, RANGE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::RegistryError;
use super::auth::Auth;
use super::credentials::Credentials;
use super::http::{Http, check_url};
use crate::fetch::Progress;
use crate::images::{Digest, OciError, manifest};

/// Host that serves the API of `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Longest body of an error in bytes.
const ERROR_BYTES: u64 = 16 << 10;

/// A repository.
pub struct Session {
    /// The connection.
    pub http: Http,
    base: Url,
    auth: Auth,
    name: String,
}

/// A document with its digest.
pub struct Document {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The document.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    message: String,
}

impl Session {
    /// A session for the repository of a reference.
    ///
    /// # Errors
    /// An invalid host.
    pub async fn new(
        http: Http,
        wanted: &ContainerRef,
        credentials: Option<Credentials>,
        progress: &dyn Progress,
    ) -> Result<Self, RegistryError> {
        let host = match wanted.host() {
            "docker.io" => DOCKER_HUB,
            host => host,
        };
        let scheme =
            if http.local && !speaks_tls(&http, host, progress).await? { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", wanted.repository());
        let base = Url::parse(&base).map_err(|error| RegistryError::Protocol {
            host: http.server(),
            why: format!("has no valid address: {error}"),
        })?;
        let auth = Auth::new(credentials, wanted.repository());
        Ok(Self { http, base, auth, name: wanted.to_string() })
    }

    /// The reference.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|error| RegistryError::Protocol {
            host: self.http.server(),
            why: format!("has no valid address: {error}"),
        })
    }

    /// A manifest or an index by tag or digest.
    ///
    /// # Errors
    /// Not found; another content than the digest's; the registry's.
    pub async fn document(
        &self,
        version: &str,
        progress: &dyn Progress,
    ) -> Result<Document, RegistryError> {
        let url = self.url(&format!("manifests/{version}"))?;
        let accept = [manifest::MANIFESTS, manifest::INDEXES].concat().join(", ");
        let response = self.ask(&url, Some(&accept), None, progress).await?;
        let named = response.headers().get("docker-content-digest");
        let named = named.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = self.http.body(response, manifest::DOCUMENT_BYTES, progress).await?;
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        for expected in [Some(version), named.as_deref()].into_iter().flatten() {
            if let Some(expected) = expected.strip_prefix("sha256:")
                && expected != hex
            {
                let (name, expected) = (self.name.clone(), banger_api::excerpt(expected));
                return Err(OciError::DigestMismatch { name, expected }.into());
            }
        }
        let digest = Digest::parse(&format!("sha256:{hex}"))?;
        Ok(Document { digest, bytes })
    }

    /// The index of manifests that refer to an image.
    ///
    /// # Errors
    /// Not found: a registry without this part of the API; the registry's.
    pub async fn referrers(
        &self,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(&format!("referrers/{digest}"))?;
        let response = self.ask(&url, Some(manifest::INDEXES[0]), None, progress).await?;
        self.http.body(response, manifest::DOCUMENT_BYTES, progress).await
    }

    /// The answer with a blob from byte `from` on; status 200 means from its beginning.
    ///
    /// # Errors
    /// Not found; the registry's.
    pub async fn blob(
        &self,
        digest: &Digest,
        from: u64,
        progress: &dyn Progress,
    ) -> Result<Response, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.ask(&url, None, range.as_deref(), progress).await
    }

    async fn ask(
        &self,
        url: &Url,
        accept: Option<&str>,
        range: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Response, RegistryError> {
        let send = || {
            let mut request = self.auth.apply(self.http.get(url.clone()));
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            self.http.send(request, progress)
        };
        let mut response = send().await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && self.auth.answer(response.headers(), &self.http, progress).await?
        {
            response = send().await?;
        }
        let host = self.http.server();
        let name = self.name.clone();
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(RegistryError::Denied { host, name, sent: self.auth.has_credentials() })
            }
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { host, name }),
            status if status.is_redirection() => {
                let to = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let to = to.and_then(|to| url.join(to).ok());
                let why = to.and_then(|to| check_url(&to, self.http.local).err());
                let why = why.unwrap_or_else(|| "sends a redirect without an address".to_owned());
                Err(RegistryError::Protocol { host, why })
            }
            StatusCode::TOO_MANY_REQUESTS => Err(RegistryError::TooManyRequests { host }),
            status => {
                let body = self.http.body(response, ERROR_BYTES, progress).await;
                let message = message(&body.unwrap_or_default());
                Err(RegistryError::Status { host, status: status.as_u16(), message })
            }
        }
    }
}

/// The registry's own words in the body of an error.
fn message(body: &[u8]) -> String {
    let errors = serde_json::from_slice::<Errors>(body);
    let first = errors.ok().and_then(|all| all.errors.into_iter().next());
    let words = first.map(|error| error.message).unwrap_or_default();
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Whether a registry on this host speaks TLS; others must.
async fn speaks_tls(
    http: &Http,
    host: &str,
    progress: &dyn Progress,
) -> Result<bool, RegistryError> {
    let Ok(url) = Url::parse(&format!("https://{host}/v2/")) else { return Ok(false) };
    match http.send(http.get(url), progress).await {
        Ok(_) => Ok(true),
        Err(RegistryError::Fetch(error)) => Err(error.into()),
        // It speaks TLS, with a certificate that this host does not trust.
        Err(RegistryError::Unreachable { why, .. }) => Ok(why.contains("certificate")),
        Err(_) => Ok(false),
    }
}
