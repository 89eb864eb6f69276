//! Client of Firecracker's API: HTTP/1.1 over its Unix socket.
//!
//! Paths are those of its API description, src/firecracker/swagger/firecracker.yaml; a test
//! compares [`PATHS`] with them.

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

/// Maximum size of an answer in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Time limit of a request; generous for a busy host under nested emulation.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Methods and paths in use.
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

/// Errors of the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection cannot be established.
    #[error("the connection to Firecracker failed")]
    Connection(#[source] io::Error),
    /// A request failed.
    #[error("Firecracker's `{method} {path}` failed")]
    Request {
        /// Method.
        method: &'static str,
        /// Path.
        path: String,
        /// The cause.
        #[source]
        cause: RequestError,
    },
}

impl ClientError {
    /// Whether Firecracker rejected the request; otherwise it may have ended.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Request { cause: RequestError::Fault(_), .. })
    }
}

/// Cause of a failed request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Firecracker's message, sanitised.
    #[error("{0}")]
    Fault(String),
    /// The connection ended, or the answer is not HTTP.
    #[error("no valid answer")]
    Http(#[source] hyper::Error),
    /// An unexpected or oversized document.
    #[error("the answer is malformed")]
    Malformed,
    /// The time limit.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
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
    move |cause| ClientError::Request { method, path, cause }
}

/// A connection to Firecracker's API.
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
    /// A client on a connected socket.
    ///
    /// # Errors
    /// fcntl(2); the HTTP handshake.
    pub async fn new(socket: OwnedFd) -> Result<Self, ClientError> {
        let stream = StdStream::from(socket);
        stream.set_nonblocking(true).map_err(ClientError::Connection)?;
        let stream = UnixStream::from_std(stream).map_err(ClientError::Connection)?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            shaken.map_err(|error| ClientError::Connection(io::Error::other(error)))?;
        let connection = tokio::spawn(async move {
            // Pending requests report the error.
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
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.send(method, path, body)).await;
        answer.unwrap_or(Err(RequestError::Timeout)).map_err(failed(method, path))
    }

    async fn send(
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

    async fn request(
        &mut self,
        method: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|_| failed(method, path)(RequestError::Malformed))?;
        self.exchange(method, path, body).await.map(|_| ())
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let body = self.exchange("GET", path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|_| failed("GET", path)(RequestError::Malformed))
    }

    /// Id, state and version.
    ///
    /// # Errors
    /// Those of every request: a lost connection, a rejection, an invalid answer.
    pub async fn instance(&mut self) -> Result<Instance, ClientError> {
        self.get("/").await
    }

    /// Its version.
    ///
    /// # Errors
    /// See [`Self::instance`].
    pub async fn version(&mut self) -> Result<String, ClientError> {
        self.get::<Version>("/version").await.map(|version| version.firecracker_version)
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
                    self.request($method, $path, body).await
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
    /// Destination of the log.
    logger("PUT", "/logger", schema::Logger);
    /// Destination of the metrics.
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
        self.request("PUT", &format!("/drives/{}", drive.drive_id), drive).await
    }

    /// A network interface.
    ///
    /// # Errors
    /// See [`Self::instance`].
    pub async fn network_interface(
        &mut self,
        interface: &schema::NetworkInterface,
    ) -> Result<(), ClientError> {
        self.request("PUT", &format!("/network-interfaces/{}", interface.iface_id), interface).await
    }
}
