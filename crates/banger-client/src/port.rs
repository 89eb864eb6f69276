//! Connections to TCP ports of a guest, through its agent. They outlive the daemon.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use banger_agent_proto::http::ErrorBody;
use banger_agent_proto::ssh::{MAX_HOST_KEYS, NOT_LISTENING, SshServer, UPGRADE, public_key};
use banger_agent_proto::{MAX_HTTP_HEAD, MAX_JSON_BODY};
use banger_api::boot::{Wait, WaitFor};
use banger_api::{ApiError, ErrorCode, Hint};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::UnixStream;

use crate::agent;
use crate::client::Client;
use crate::http::{self, Call, Connection};

/// Maximum time that [`Client::connect_port`] waits for a port; an answer may take 10 s longer.
pub const MAX_PORT_WAIT: Duration = Duration::from_secs(50);
/// How long a VM that is starting may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum number of characters of a guest's message that are passed on.
const MAX_MESSAGE: usize = 1024;

/// A connection to a port of a guest.
pub struct PortStream {
    /// Bytes that the guest has sent already.
    pub early: Bytes,
    stream: UnixStream,
}

impl PortStream {
    pub(crate) fn new(early: Bytes, stream: UnixStream) -> Self {
        Self { early, stream }
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn into_parts(self) -> (Bytes, UnixStream) {
        (self.early, self.stream)
    }

    /// The connection as one stream, the bytes that have arrived first.
    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + use<> {
        let (from, to) = self.stream.into_split();
        tokio::io::join(io::Cursor::new(self.early).chain(from), to)
    }

    /// The socket, in blocking mode. A half-close of it ends the whole connection.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn into_std(self) -> io::Result<StdStream> {
        let stream = self.stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

/// Result of a connection attempt.
pub enum Port {
    /// The port accepted the connection.
    Open(PortStream),
    /// Nothing listens on the port.
    Closed,
}

impl Client {
    /// Connects to a TCP port of a guest. Waits until a VM that is starting is ready, and then for
    /// at most `wait` until the port is open; less if the guest has booted without opening it.
    ///
    /// # Errors
    /// Not found, not running; an agent that does not answer or of a version without this; a
    /// daemon on another host; or the daemon's.
    pub async fn connect_port(
        &self,
        vm: &str,
        port: u16,
        wait: Duration,
    ) -> Result<Port, ApiError> {
        let wait_ms = wait.min(MAX_PORT_WAIT).as_millis();
        let mut call = Call::get(format!("/connect?port={port}&wait_ms={wait_ms}"));
        call.method = Method::POST;
        let call = call.with_header("connection", "upgrade").with_header("upgrade", UPGRADE);
        let answer = self.agent_answer(vm, call).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            status if status.as_u16() == NOT_LISTENING => return Ok(Port::Closed),
            _ => return Err(refusal(vm, answer).await),
        }
        upgraded(vm, answer).await.map(Port::Open)
    }

    /// The ssh server of a guest and its host keys.
    ///
    /// # Errors
    /// As [`Client::connect_port`].
    pub async fn ssh_server(&self, vm: &str) -> Result<SshServer, ApiError> {
        let answer = agent::within(agent::ANSWER_TIMEOUT, async {
            let answer = self.agent_answer(vm, Call::get("/sshd")).await?;
            if !answer.status().is_success() {
                return Err(refusal(vm, answer).await);
            }
            http::body(answer.into_body(), MAX_JSON_BODY, "the agent").await
        });
        let server: SshServer = serde_json::from_slice(&answer.await?).map_err(|error| {
            let text = format!("cannot parse the host keys that the agent of `{vm}` sent");
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
        })?;
        // The guest is not trusted to have checked them.
        let keys = server.host_keys.iter().filter_map(|key| public_key(key));
        Ok(SshServer { host_keys: keys.take(MAX_HOST_KEYS).collect(), ..server })
    }

    pub(crate) async fn agent_answer(
        &self,
        vm: &str,
        call: Call,
    ) -> Result<Response<Incoming>, ApiError> {
        if !self.is_local() {
            let text = "a connection to a guest's port needs the daemon on this host";
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let timeout_ms = u64::try_from(READY_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let ready = Wait { stage: WaitFor::Ready, timeout_ms };
        let stream = self.descriptor(vm, Some(ready)).await?.agent;
        let lost = |error: http::CallError| {
            let text = format!("the agent of `{vm}` does not answer");
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
        };
        let mut connection = Connection::open(stream, MAX_HTTP_HEAD).await.map_err(lost)?;
        connection.send(call).await.map_err(lost)
    }
}

/// The connection after an answer `101`.
///
/// # Errors
/// The connection's.
pub(crate) async fn upgraded(vm: &str, answer: Response<Incoming>) -> Result<PortStream, ApiError> {
    let broken = |error: &dyn std::error::Error| {
        let text = format!("the agent of `{vm}` did not pass its connection on");
        ApiError::new(ErrorCode::GuestFailed, text).caused_by(error)
    };
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error))?;
    match upgraded.downcast::<TokioIo<UnixStream>>() {
        Ok(parts) => Ok(PortStream { early: parts.read_buf, stream: parts.io.into_inner() }),
        Err(_) => Err(broken(&io::Error::other("the connection is not a socket"))),
    }
}

/// The agent's refusal as an error.
pub(crate) async fn refusal(vm: &str, answer: Response<Incoming>) -> ApiError {
    let status = answer.status();
    if status == StatusCode::NOT_FOUND {
        let text = format!("the agent of `{vm}` is of an older version, without this");
        return ApiError::new(ErrorCode::OtherBuild, text)
            .with_hint(Hint::UpdateAgent { vm: vm.to_owned() });
    }
    let body = http::body(answer.into_body(), MAX_JSON_BODY, "the agent").await;
    let parsed = body.ok().and_then(|body| serde_json::from_slice::<ErrorBody>(&body).ok());
    let text = match parsed {
        Some(body) => body.error.chars().take(MAX_MESSAGE).flat_map(char::escape_debug).collect(),
        None => format!("the agent of `{vm}` refused ({status})"),
    };
    ApiError::new(ErrorCode::GuestFailed, text)
}
