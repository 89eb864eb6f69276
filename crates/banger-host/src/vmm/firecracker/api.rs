//! Firecracker's API: HTTP/1.1 over its Unix socket, one connection for a conversation.
//!
//! Paths are those of its API description, src/firecracker/swagger/firecracker.yaml; a test holds
//! [`PATHS`] against the list of them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::schema;

/// Largest answer in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest time for an answer, also on a busy host under nested emulation.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Every path that is used, with its methods.
pub const PATHS: &[(&str, &str)] = &[
    ("GET", "/"),
    ("PUT", "/actions"),
    ("PUT", "/balloon"),
    ("PATCH", "/balloon"),
    ("PUT", "/boot-source"),
    ("PUT", "/drives/{drive_id}"),
    ("PUT", "/entropy"),
    ("PUT", "/logger"),
    ("PUT", "/machine-config"),
    ("PUT", "/metrics"),
    ("PUT", "/network-interfaces/{iface_id}"),
    ("PUT", "/serial"),
    ("PUT", "/snapshot/create"),
    ("PUT", "/snapshot/load"),
    ("GET", "/version"),
    ("PATCH", "/vm"),
    ("PUT", "/vsock"),
];

/// What goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Before there was a conversation.
    #[error("the connection to Firecracker failed")]
    Connection(#[source] io::Error),
    /// With a request.
    #[error("Firecracker's `{method} {path}` failed")]
    Request {
        /// Method.
        method: &'static str,
        /// Path.
        path: String,
        /// Why.
        #[source]
        why: RequestError,
    },
}

impl ClientError {
    /// Whether it is Firecracker's own answer; else it may have ended.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Request { why: RequestError::Fault(_), .. })
    }
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Firecracker's own words, made harmless.
    #[error("{0}")]
    Fault(String),
    /// The connection ended, or what came is no HTTP.
    #[error("its answer was not understood or did not come")]
    Http(#[source] hyper::Error),
    /// Not the document that was expected, or too long a one.
    #[error("its answer was not understood")]
    Malformed,
    /// It took too long.
    #[error("it took more than {} s", ANSWER_TIMEOUT.as_secs())]
    Slow,
}

/// `GET /`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Instance {
    /// The id that the jailer was given.
    pub id: String,
    /// `Not started`, `Running` or `Paused`.
    pub state: String,
    /// Version.
    pub vmm_version: String,
}

#[derive(serde::Deserialize)]
struct Fault {
    fault_message: String,
}

#[derive(serde::Deserialize)]
struct Version {
    firecracker_version: String,
}

fn failed(method: &'static str, path: &str) -> impl FnOnce(RequestError) -> ClientError {
    let path = path.to_owned();
    move |why| ClientError::Request { method, path, why }
}

/// A conversation.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    /// On a connected socket.
    ///
    /// # Errors
    /// The socket's.
    pub async fn on(socket: OwnedFd) -> Result<Self, ClientError> {
        let stream = StdStream::from(socket);
        stream.set_nonblocking(true).map_err(ClientError::Connection)?;
        let stream = UnixStream::from_std(stream).map_err(ClientError::Connection)?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            shaken.map_err(|error| ClientError::Connection(io::Error::other(error)))?;
        let connection = tokio::spawn(async move {
            // Whoever waits for an answer hears of it.
            let _ = connection.await;
        });
        Ok(Self { sender, connection })
    }

    async fn exchange(
        &mut self,
        method: &'static str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, ClientError> {
        let talk = tokio::time::timeout(ANSWER_TIMEOUT, self.talk(method, path, body)).await;
        talk.unwrap_or(Err(RequestError::Slow)).map_err(failed(method, path))
    }

    async fn talk(
        &mut self,
        method: &'static str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, RequestError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| RequestError::Malformed)?;
        let response = self.sender.send_request(request).await.map_err(RequestError::Http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| RequestError::Malformed)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let fault = serde_json::from_slice::<Fault>(&body)
            .map_or_else(|_| status.to_string(), |fault| fault.fault_message);
        Err(RequestError::Fault(crate::guest::clean(&fault)))
    }

    async fn tell(
        &mut self,
        method: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|_| failed(method, path)(RequestError::Malformed))?;
        self.exchange(method, path, body).await.map(|_| ())
    }

    async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let body = self.exchange("GET", path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|_| failed("GET", path)(RequestError::Malformed))
    }

    /// Who it is and how it does.
    ///
    /// # Errors
    /// Those of every request here: the socket's, a refusal, an answer that is none.
    pub async fn instance(&mut self) -> Result<Instance, ClientError> {
        self.ask("/").await
    }

    /// Its version.
    ///
    /// # Errors
    /// See [`Self::instance`].
    pub async fn version(&mut self) -> Result<String, ClientError> {
        self.ask::<Version>("/version").await.map(|version| version.firecracker_version)
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($method:literal, $path:literal, $body:ty);)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// See [`Self::instance`].
                pub async fn $name(&mut self, body: &$body) -> Result<(), ClientError> {
                    self.tell($method, $path, body).await
                }
            )*
        }
    };
}

calls! {
    /// vCPUs and memory.
    machine_config("PUT", "/machine-config", schema::MachineConfig);
    /// Kernel, initramfs, command line.
    boot_source("PUT", "/boot-source", schema::BootSource);
    /// The vsock device.
    vsock("PUT", "/vsock", schema::Vsock);
    /// The entropy device.
    entropy("PUT", "/entropy", schema::Entropy);
    /// The balloon.
    balloon("PUT", "/balloon", schema::Balloon);
    /// Its size, while the guest runs.
    resize_balloon("PATCH", "/balloon", schema::BalloonUpdate);
    /// Where it writes its log.
    logger("PUT", "/logger", schema::Logger);
    /// Where it writes its metrics.
    metrics("PUT", "/metrics", schema::Metrics);
    /// Where the guest's serial line goes, since 1.14.
    serial("PUT", "/serial", schema::Serial);
    /// Starts the guest, presses keys, flushes metrics.
    action("PUT", "/actions", schema::Action);
    /// Pauses and resumes.
    vm_state("PATCH", "/vm", schema::VmState);
    /// Writes a snapshot of a paused guest.
    create_snapshot("PUT", "/snapshot/create", schema::SnapshotCreate);
    /// Loads one into a VMM that has no guest yet.
    load_snapshot("PUT", "/snapshot/load", schema::SnapshotLoad);
}

impl Client {
    /// A drive; the guest sees them in the order of these calls.
    ///
    /// # Errors
    /// See [`Self::instance`].
    pub async fn drive(&mut self, drive: &schema::Drive) -> Result<(), ClientError> {
        self.tell("PUT", &format!("/drives/{}", drive.drive_id), drive).await
    }

    /// A network interface.
    ///
    /// # Errors
    /// See [`Self::instance`].
    pub async fn network_interface(
        &mut self,
        interface: &schema::NetworkInterface,
    ) -> Result<(), ClientError> {
        self.tell("PUT", &format!("/network-interfaces/{}", interface.iface_id), interface).await
    }
}
