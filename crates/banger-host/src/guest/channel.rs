//! Connections that the host opens to the agent: the vsock handshake, then plain HTTP/1.1.
//!
//! The handshake is that of Firecracker's hybrid vsock (docs/vsock.md of Firecracker): `CONNECT
//! <port>\n`, answered by `OK <number>\n`; nothing may be sent before the answer.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_agent_proto::http::ErrorBody;
use banger_agent_proto::{AGENT_PORT, MAX_JSON_BODY, ssh};
use banger_api::hint::VmLog;
use banger_api::vm::{DEFAULT_GRACE_MS, VmAction};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::plan::VmPlan;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Maximum length of the answer to `CONNECT`: `OK ` and a 32-bit number.
const MAX_HANDSHAKE: usize = 16;

/// Error of a connection to an agent.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The socket cannot be reached, or was closed.
    #[error("its vsock connection failed")]
    Io(#[source] io::Error),
    /// The VMM or the guest closed the connection: no agent is listening.
    #[error("no agent listens in the guest")]
    Refused,
    /// The VMM, or its companion, accepts no connections.
    #[error("its VMM accepts no connections: its queue is full")]
    QueueFull,
    /// Invalid answer.
    #[error("its answer was not understood")]
    Malformed,
    /// HTTP failed.
    #[error("its answer was not understood")]
    Http(#[source] hyper::Error),
    /// The agent refused the request.
    #[error("it answered {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Its error message.
        message: String,
    },
    /// Timeout.
    #[error("it did not answer in time")]
    Slow,
}

impl Failure {
    /// Converts to an error of a VM.
    pub fn about(&self, vm: &VmPlan) -> ApiError {
        let text = format!("the agent of `{}` could not be used", vm.name);
        ApiError::new(ErrorCode::GuestFailed, text)
            .caused_by(self)
            .with_hint(Hint::log(&vm.name, VmLog::Console))
            .with_hint(Hint::log(&vm.name, VmLog::Vmm))
            .with_hint(Hint::ask(&vm.name, VmAction::Restart { grace_ms: DEFAULT_GRACE_MS }))
    }
}

/// Connects to the agent over a connection to the VMM's vsock socket.
///
/// # Errors
/// No agent is listening; an invalid answer.
pub async fn dial(mut stream: UnixStream) -> Result<UnixStream, Failure> {
    let connect = format!("CONNECT {AGENT_PORT}\n");
    stream.write_all(connect.as_bytes()).await.map_err(Failure::Io)?;
    let mut answer = Vec::with_capacity(MAX_HANDSHAKE);
    loop {
        // Byte by byte: the bytes after the newline belong to the next reader.
        let byte = match stream.read_u8().await {
            Ok(byte) => byte,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Failure::Refused);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(Failure::Refused);
            }
            Err(error) => return Err(Failure::Io(error)),
        };
        if byte == b'\n' {
            break;
        }
        answer.push(byte);
        if answer.len() > MAX_HANDSHAKE {
            return Err(Failure::Malformed);
        }
    }
    let answer = String::from_utf8(answer).map_err(|_| Failure::Malformed)?;
    let number = answer.strip_prefix("OK ").ok_or(Failure::Malformed)?;
    number.trim().parse::<u32>().map_err(|_| Failure::Malformed)?;
    Ok(stream)
}

/// Times of a request and its answer, in microseconds since 1970 by the host's clock.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The request was sent.
    pub sent_us: i64,
    /// The answer's first byte arrived.
    pub received_us: i64,
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> Result<(Bytes, Times), Failure> {
    let stream = dial(stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    let connection = tokio::spawn(connection);
    let result = async {
        let sent_us = now_us();
        let response = sender.send_request(request).await.map_err(Failure::Http)?;
        let times = Times { sent_us, received_us: now_us() };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_JSON_BODY).collect().await;
        let body = body.map_err(|_| Failure::Malformed)?.to_bytes();
        if status.is_success() {
            return Ok((body, times));
        }
        let message = serde_json::from_slice::<ErrorBody>(&body)
            .map(|body| super::boot::clean(&body.error))
            .unwrap_or_default();
        Err(Failure::Status { status: status.as_u16(), message })
    }
    .await;
    drop(sender);
    connection.abort();
    result
}

fn request(method: &str, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, Failure> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "agent")
        .header("connection", "close")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| Failure::Malformed)
}

/// `GET`s a JSON document.
///
/// # Errors
/// The connection's; an unexpected document.
pub async fn get<T: DeserializeOwned>(stream: UnixStream, path: &str) -> Result<T, Failure> {
    get_timed(stream, path).await.map(|(document, _)| document)
}

/// `GET`s a JSON document; also returns the times of the exchange.
///
/// # Errors
/// As [`get`].
pub async fn get_timed<T: DeserializeOwned>(
    stream: UnixStream,
    path: &str,
) -> Result<(T, Times), Failure> {
    let (body, times) = exchange(stream, request("GET", path, Vec::new())?).await?;
    let document = serde_json::from_slice(&body).map_err(|_| Failure::Malformed)?;
    Ok((document, times))
}

/// `POST`s a JSON document and returns the answer, another one.
///
/// # Errors
/// The connection's; the agent's refusal; an unexpected document.
pub async fn ask<T: DeserializeOwned>(
    stream: UnixStream,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(body).map_err(|_| Failure::Malformed)?;
    let (body, _) = exchange(stream, request("POST", path, body)?).await?;
    serde_json::from_slice(&body).map_err(|_| Failure::Malformed)
}

/// Connects to a TCP port of the guest, for which the agent waits at most `wait` while the guest
/// boots.
///
/// # Errors
/// The connection's; nothing listens on the port.
pub async fn port(
    stream: UnixStream,
    port: u16,
    wait: Duration,
) -> Result<TokioIo<Upgraded>, Failure> {
    let stream = dial(stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    // Its errors also fail the request.
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(format!("/connect?port={port}&wait_ms={}", wait.as_millis()))
        .header("host", "agent")
        .header("connection", "upgrade")
        .header("upgrade", ssh::UPGRADE)
        .body(Full::new(Bytes::new()))
        .map_err(|_| Failure::Malformed)?;
    let answer = sender.send_request(request).await.map_err(Failure::Http)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (status, message) = (answer.status().as_u16(), "no connection to the port".to_owned());
        return Err(Failure::Status { status, message });
    }
    hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(Failure::Http)
}

/// `POST`s a JSON document.
///
/// # Errors
/// The connection's; the agent's refusal.
pub async fn post(stream: UnixStream, path: &str, body: &impl Serialize) -> Result<(), Failure> {
    let body = serde_json::to_vec(body).map_err(|_| Failure::Malformed)?;
    exchange(stream, request("POST", path, body)?).await.map(|_| ())
}
