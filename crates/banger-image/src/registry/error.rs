//! Errors of pulling from a registry.

use crate::fetch::FetchError;
use crate::images::OciError;
use crate::trust::TrustError;

/// A server, as errors name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its kind: `registry`, or `server` of a catalog's files.
    pub kind: &'static str,
    /// Host, and the port if it has one.
    pub host: String,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.host)
    }
}

/// Errors of pulling from a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// An error of the operating system; no space; cancellation.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A document or layer that cannot be used.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The registry has no such image.
    #[error("the {host} has no image `{name}`")]
    NotFound {
        /// Host of the registry.
        host: Server,
        /// The reference.
        name: String,
    },
    /// The registry requires a login, or refuses the one that it got.
    #[error("the {host} refuses access to `{name}`{}", login(*sent))]
    Denied {
        /// Host of the registry.
        host: Server,
        /// The reference.
        name: String,
        /// Whether credentials were sent.
        sent: bool,
    },
    /// The registry limits the number of requests.
    #[error("the {host} refuses further requests for now")]
    TooManyRequests {
        /// Its host.
        host: Server,
    },
    /// Another unexpected answer.
    #[error("the {host} answers with status {status}{}", after_colon(message))]
    Status {
        /// Host of the registry.
        host: Server,
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// No connection, or one that ended.
    #[error("cannot reach the {host}: {why}")]
    Unreachable {
        /// Its host.
        host: Server,
        /// The cause.
        why: String,
    },
    /// No data within the time limit.
    #[error("the {host} sent too little for {seconds} s")]
    Stalled {
        /// Its host.
        host: Server,
        /// The time limit.
        seconds: u64,
    },
    /// The answer is not what the protocol demands.
    #[error("the {host} {why}")]
    Protocol {
        /// Its host.
        host: Server,
        /// The defect.
        why: String,
    },
    /// Credentials cannot be read.
    #[error("cannot read the credentials for {host}: {why}")]
    Credentials {
        /// Host of the registry.
        host: String,
        /// The cause, without a secret.
        why: String,
    },
    /// An image without the signature that `[trust]` demands.
    #[error("the image `{name}` {why}")]
    Unsigned {
        /// The reference.
        name: String,
        /// What it has instead.
        why: String,
    },
    /// A file of `[trust]` cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// TLS or a proxy cannot be set up.
    #[error("cannot set up connections to registries: {why}")]
    Setup {
        /// The cause.
        why: String,
    },
}

fn login(sent: bool) -> &'static str {
    if sent { " with the login of Docker's configuration" } else { " without a login" }
}

fn after_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl RegistryError {
    /// Whether the same request may succeed shortly.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}
