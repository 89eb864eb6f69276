//! HTTP for registries: TLS by the host's certificates and those of `[ca]`, proxies, redirects that
//! do not lead into this host, limits of time and size.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use tokio::time::Instant;

use super::{RegistryError, Server};
use crate::ca::CaSettings;
use crate::fetch::{FetchError, Progress};
use crate::proxy::ProxySettings;

/// Maximum number of redirects of a request.
const MAX_REDIRECTS: usize = 5;
/// Interval at which a wait checks for cancellation: [`Progress`] has no event for it.
const LOOK: Duration = Duration::from_millis(100);

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// To connect.
    pub connect: Duration,
    /// From a request to its answer.
    pub answer: Duration,
    /// Within which a download brings [`Timing::least_bytes`].
    pub idle: Duration,
    /// Fewer bytes within `idle` are a stall.
    pub least_bytes: u64,
    /// Pause before the first retry; doubled for each further one.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            least_bytes: 16 << 10,
            retry: Duration::from_millis(500),
        }
    }
}

/// Whether a host is this host itself, or an address that only this host and its cloud serve.
pub fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => is_local_address(address),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn is_local_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// Resolves names, and refuses those that lead to this host unless they were given by the user.
struct NotLocal {
    given: Vec<String>,
}

impl Resolve for NotLocal {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let given = self.given.iter().any(|known| known.eq_ignore_ascii_case(&host));
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| given || !is_local_address(address.ip())).collect();
            if allowed.is_empty() {
                return Err(format!("`{host}` has no address but this host's own").into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Checks where a registry leads to: https, or http on this host for a registry on this host.
pub fn check_url(url: &Url, registry_is_local: bool) -> Result<(), String> {
    let local = url.host_str().is_none_or(is_local);
    match url.scheme() {
        "https" if !local || registry_is_local => Ok(()),
        "http" if local && registry_is_local => Ok(()),
        "http" | "https" if local => Err("leads to this host itself".into()),
        "http" => Err("leads to an address without encryption".into()),
        other => Err(format!("leads to an address of type `{}`", banger_api::excerpt(other))),
    }
}

/// A client for one registry.
#[derive(Clone)]
pub struct Http {
    client: Client,
    server: Server,
    /// Whether the registry is on this host.
    pub local: bool,
    /// Time limits.
    pub timing: Timing,
}

impl Http {
    /// A client for the registry at `host`, which may have a port.
    ///
    /// # Errors
    /// Certificates that cannot be read; a bad proxy.
    pub fn new(
        host: &str,
        proxy: &ProxySettings,
        ca: &CaSettings,
        timing: Timing,
    ) -> Result<Self, RegistryError> {
        // Another part of the process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setup = |error: &dyn std::error::Error| RegistryError::Setup { why: chain(error) };
        let name = host_name(host);
        let local = is_local(&name);
        let redirects = Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("leads through too many addresses");
            }
            match check_url(attempt.url(), local) {
                Ok(()) => attempt.follow(),
                Err(why) => attempt.error(why),
            }
        });
        let mut builder = Client::builder()
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timing.connect)
            .redirect(redirects)
            .referer(false);
        let mut given = vec![name];
        given.extend(proxy.proxies().map(|(_, url)| url.host().to_owned()));
        given.extend(
            variables().filter_map(|text| Some(Url::parse(&text).ok()?.host_str()?.into())),
        );
        if !local {
            builder = builder.dns_resolver(Arc::new(NotLocal { given }));
        }
        if local {
            builder = builder.no_proxy();
        } else if proxy.proxies().next().is_some() {
            builder = builder.no_proxy();
            let set = proxy.variables();
            let direct = set.get("no_proxy").map(String::as_str).unwrap_or_default();
            if let Some(url) = set.get("https_proxy") {
                let proxy = reqwest::Proxy::https(url).map_err(|error| setup(&error))?;
                builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(direct)));
            }
        }
        let extra = ca.load().map_err(FetchError::from)?;
        let extra: Result<Vec<_>, _> =
            extra.iter().map(|one| reqwest::Certificate::from_pem(one.pem.as_bytes())).collect();
        builder = builder.tls_certs_merge(extra.map_err(|error| setup(&error))?);
        let client = builder.build().map_err(|error| setup(&error))?;
        let server = Server { kind: "registry", host: host.to_owned() };
        Ok(Self { client, server, local, timing })
    }

    /// For another server than a registry: errors name it so.
    #[must_use]
    pub fn of_server(self) -> Self {
        Self { server: Server { kind: "server", ..self.server }, ..self }
    }

    /// The registry.
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    /// A GET request.
    pub fn get(&self, url: Url) -> RequestBuilder {
        self.client.get(url)
    }

    /// A POST request.
    pub fn post(&self, url: Url) -> RequestBuilder {
        self.client.post(url)
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// No connection; no answer in time; a redirect that is not followed; cancellation.
    pub async fn send(
        &self,
        request: RequestBuilder,
        progress: &dyn Progress,
    ) -> Result<Response, RegistryError> {
        let sent = self.watch(request.send(), self.timing.answer, progress).await?;
        sent.map_err(|error| self.failed(&error))
    }

    /// The next part of a body; `None` at its end.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn chunk(
        &self,
        response: &mut Response,
        progress: &dyn Progress,
    ) -> Result<Option<bytes::Bytes>, RegistryError> {
        let read = self.watch(response.chunk(), self.timing.idle, progress).await?;
        read.map_err(|error| self.failed(&error))
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// A longer body; as [`Self::send`].
    pub async fn body(
        &self,
        mut response: Response,
        limit: u64,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, RegistryError> {
        let begun = Instant::now();
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, progress).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                let why = format!("sends a document of more than {} KiB", limit >> 10);
                return Err(RegistryError::Protocol { host: self.server(), why });
            }
            body.extend_from_slice(&chunk);
            if begun.elapsed() > self.timing.answer {
                return Err(self.stalled(self.timing.answer));
            }
        }
        Ok(body)
    }

    async fn watch<T>(
        &self,
        work: impl Future<Output = T>,
        limit: Duration,
        progress: &dyn Progress,
    ) -> Result<T, RegistryError> {
        let mut work = std::pin::pin!(work);
        let end = Instant::now() + limit;
        loop {
            if let Ok(done) = tokio::time::timeout(LOOK.min(limit), &mut work).await {
                return Ok(done);
            }
            progress.go_on()?;
            if Instant::now() >= end {
                return Err(self.stalled(limit));
            }
        }
    }

    /// The error of a download that brings too little.
    pub fn stalled(&self, limit: Duration) -> RegistryError {
        RegistryError::Stalled { host: self.server(), seconds: limit.as_secs() }
    }

    fn failed(&self, error: &reqwest::Error) -> RegistryError {
        let host = self.server();
        if error.is_redirect() {
            let why = std::error::Error::source(error).map_or_else(String::new, chain);
            return RegistryError::Protocol { host, why };
        }
        if error.is_timeout() {
            return self.stalled(self.timing.connect);
        }
        // The address of an error may have a signature as its query.
        let why = std::error::Error::source(error).map_or_else(|| "it failed".into(), chain);
        RegistryError::Unreachable { host, why }
    }
}

/// Values of proxy variables in the environment.
fn variables() -> impl Iterator<Item = String> {
    ProxySettings::names().filter_map(|name| std::env::var(name).ok())
}

/// A host without its port and brackets.
fn host_name(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_matches(['[', ']']).to_owned()
}

/// The words of an error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let word = cause.to_string();
        if !words.iter().any(|known| known.contains(&word)) {
            words.push(word);
        }
        next = cause.source();
    }
    let text = words.join(": ");
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_does_not_lead_into_this_host() {
        for (url, public, local) in [
            ("https://cdn.example/x", true, true),
            ("https://10.0.0.1/x", true, true),
            ("http://cdn.example/x", false, false),
            ("https://localhost/x", false, true),
            ("http://127.0.0.1:80/x", false, true),
            ("http://127.1/x", false, true),
            ("https://[::1]/x", false, true),
            ("https://[::ffff:127.0.0.1]/x", false, true),
            ("https://0.0.0.0/x", false, true),
            ("https://169.254.169.254/latest", false, true),
            ("https://a.localhost./x", false, true),
            ("file:///etc/passwd", false, false),
            ("ftp://cdn.example/x", false, false),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(check_url(&parsed, false).is_ok(), public, "{url}");
            assert_eq!(check_url(&parsed, true).is_ok(), local, "{url}");
        }
        for host in ["127.0.0.1:5000", "[::1]:5000", "localhost", "localhost:1"] {
            assert!(is_local(&host_name(host)), "{host}");
        }
        assert!(!is_local(&host_name("ghcr.io")) && !is_local(&host_name("localhost.example:1")));
    }
}
