//! Files of a guest as tar archives, which arrive or leave piece by piece (docs/cp.md).
//!
//! A daemon on this host passes a connection to the agent, so that a copy outlives the daemon; one
//! on another host relays the archive. The guest is not trusted: heads and messages have limits,
//! and an archive counts as complete only at the end of a well-formed body without an error.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use banger_agent_proto::archive::{
    CONTENT_TYPE, ERROR_TRAILER, LEFT_OUT_TRAILER, NO_PATH, SOURCE_HEADER, Unpacked, decode, encode,
};
use banger_agent_proto::http::ErrorBody;
use banger_agent_proto::{MAX_HTTP_HEAD, MAX_JSON_BODY};
use banger_api::boot::{Wait, WaitFor};
use banger_api::{ApiError, ErrorCode, Hint, routes};
use banger_archive::place::{LastLink, Source};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use crate::client::{Client, fill};
use crate::http;
use crate::transport::Stream;

/// How long a VM that is starting may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// Time limit for the first answer: the agent looks for the path meanwhile.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Buffer of a connection, in bytes: the archive is read in pieces of up to this size.
const BUFFER: usize = 512 * 1024;
/// Maximum number of characters of a guest's message that are passed on.
const MAX_MESSAGE: usize = 1024;

/// A file or folder of a guest.
#[derive(Debug, Clone)]
pub struct ArchiveSource {
    /// Path, absolute or in the user's home folder; any bytes.
    pub path: Vec<u8>,
    /// Name of the top entry.
    pub name: Vec<u8>,
    /// Whether a symlink at the end of the path is followed.
    pub link: LastLink,
    /// User of the guest; the superuser if absent.
    pub user: Option<String>,
}

/// Where an archive goes in a guest.
#[derive(Debug, Clone)]
pub struct ArchiveTarget {
    /// Path, absolute or in the user's home folder; any bytes.
    pub path: Vec<u8>,
    /// What is packed.
    pub source: Source,
    /// Its name in a folder.
    pub name: Vec<u8>,
    /// Whether files get the owners and set-id bits of the archive.
    pub keep_owners: bool,
    /// User of the guest; the superuser if absent.
    pub user: Option<String>,
}

/// Pieces of an archive on their way to a guest; an error aborts the copy.
pub type Pieces = mpsc::Receiver<std::io::Result<Bytes>>;

/// A request body from a channel.
pub(crate) struct PieceBody(pub Pieces);

impl Body for PieceBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

type RequestBody = Either<Empty<Bytes>, PieceBody>;

/// An archive from a guest.
pub struct ArchiveStream {
    /// What is packed, as the guest reports it.
    pub source: Source,
    /// Number of sockets and devices that the guest left out; known at the end.
    pub left_out: u64,
    /// Whether the trailer of a complete archive has arrived.
    is_whole: bool,
    vm: String,
    body: Incoming,
}

impl ArchiveStream {
    /// The next piece; `None` at the end of a complete archive.
    ///
    /// # Errors
    /// The guest could not read a file, or the connection ended.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = match self.body.frame().await {
                None if self.is_whole => return Ok(None),
                None => {
                    let text = format!("the archive from `{}` is not complete", self.vm);
                    return Err(ApiError::new(ErrorCode::GuestFailed, text));
                }
                Some(Err(error)) => {
                    let text = format!("the connection to `{}` ended during the copy", self.vm);
                    return Err(ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error));
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.end(&trailers)?;
                    }
                }
            }
        }
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
        if let Some(message) = text(ERROR_TRAILER) {
            let message = String::from_utf8_lossy(&decode(message)).into_owned();
            return Err(refused(&self.vm, ErrorCode::GuestFailed, &message));
        }
        let left_out = text(LEFT_OUT_TRAILER).and_then(|count| count.parse().ok());
        self.is_whole = left_out.is_some();
        self.left_out = left_out.unwrap_or(0);
        Ok(())
    }
}

impl Client {
    /// Packs a file or folder of a guest. Waits until a VM that is starting is ready.
    ///
    /// # Errors
    /// VM or path not found, no permission, VM not running, an agent that does not answer or is of
    /// an earlier version, or the daemon's.
    pub async fn archive(&self, vm: &str, from: &ArchiveSource) -> Result<ArchiveStream, ApiError> {
        let mut query = query(&from.path, from.user.as_deref());
        query.push_str(&format!("&name={}", encode(&from.name)));
        if from.link == LastLink::Follow {
            query.push_str("&link=follow");
        }
        let request = (Method::GET, query, Either::Left(Empty::new()));
        let answer = tokio::time::timeout(HEAD_TIMEOUT, self.request(vm, request));
        let answer = answer.await.unwrap_or_else(|_| {
            let text = format!("the agent of `{vm}` does not answer");
            Err(ApiError::new(ErrorCode::GuestFailed, text))
        })?;
        let source = answer.headers().get(SOURCE_HEADER).map(HeaderValue::as_bytes);
        let source = source.and_then(Source::named).ok_or_else(|| {
            let text = format!("the agent of `{vm}` did not answer with an archive");
            ApiError::new(ErrorCode::GuestFailed, text)
        })?;
        let body = answer.into_body();
        Ok(ArchiveStream { source, left_out: 0, is_whole: false, vm: vm.to_owned(), body })
    }

    /// Unpacks an archive in a guest. Waits until a VM that is starting is ready.
    ///
    /// # Errors
    /// As [`Client::archive`]; an archive that is not accepted, a full disk, a file in the way.
    /// What was unpacked before stays.
    pub async fn unarchive(
        &self,
        vm: &str,
        to: &ArchiveTarget,
        pieces: Pieces,
    ) -> Result<Unpacked, ApiError> {
        let mut query = query(&to.path, to.user.as_deref());
        query.push_str(&format!("&source={}&name={}", to.source.as_str(), encode(&to.name)));
        if to.keep_owners {
            query.push_str("&owners=keep");
        }
        let request = (Method::PUT, query, Either::Right(PieceBody(pieces)));
        let answer = self.request(vm, request).await?;
        let body = http::body(answer.into_body(), MAX_JSON_BODY, "the agent").await?;
        serde_json::from_slice(&body).map_err(|error| {
            let text = format!("cannot parse the answer of the agent of `{vm}`");
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
        })
    }

    async fn request(
        &self,
        vm: &str,
        (method, query, body): (Method, String, RequestBody),
    ) -> Result<Response<Incoming>, ApiError> {
        let ready = Wait {
            stage: WaitFor::Ready,
            timeout_ms: u64::try_from(READY_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        };
        let lost = |error: &(dyn std::error::Error + 'static)| {
            let text = format!("the connection to `{vm}` ended");
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(error)
        };
        let (stream, path): (Box<dyn Stream>, _) = if self.is_local() {
            let stream = self.descriptor(vm, Some(ready)).await?.agent;
            (Box::new(stream), "/archive".to_owned())
        } else {
            self.wait_boot(vm, ready).await?;
            let stream = self.transport().connect().await.map_err(|error| lost(&error))?;
            (stream, fill(routes::VM_ARCHIVE, "vm", vm)?)
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        // Its errors are reported by the request too.
        tokio::spawn(connection);
        let target = format!("{path}?{query}");
        if target.len() > MAX_HTTP_HEAD - 1024 {
            return Err(ApiError::new(ErrorCode::BadRequest, "the path is too long"));
        }
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost")
            .header("content-type", CONTENT_TYPE)
            .header("te", "trailers")
            .body(body)
            .map_err(|error| lost(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| lost(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            _ => Err(self.refusal(vm, answer).await),
        }
    }

    async fn refusal(&self, vm: &str, answer: Response<Incoming>) -> ApiError {
        if !self.is_local() {
            return match http::accept(answer).await {
                Err(error) => error,
                Ok(()) => ApiError::new(ErrorCode::Internal, "the daemon's answer is unknown"),
            };
        }
        let status = answer.status();
        let body = http::body(answer.into_body(), MAX_JSON_BODY, "the agent").await;
        let parsed = body.ok().and_then(|body| serde_json::from_slice::<ErrorBody>(&body).ok());
        let message = parsed.map_or_else(|| format!("refused ({status})"), |body| body.error);
        let code = match status {
            StatusCode::NOT_FOUND => return older_agent(vm),
            _ if status.as_u16() == NO_PATH => ErrorCode::NotFound,
            _ if status.is_client_error() => ErrorCode::BadRequest,
            _ => ErrorCode::GuestFailed,
        };
        refused(vm, code, &message)
    }
}

fn query(path: &[u8], user: Option<&str>) -> String {
    let user = user.map(|user| format!("&user={}", encode(user.as_bytes())));
    format!("path={}{}", encode(path), user.unwrap_or_default())
}

/// The agent's message, which names a path of the guest.
fn refused(vm: &str, code: ErrorCode, message: &str) -> ApiError {
    let message: String = message.chars().take(MAX_MESSAGE).flat_map(char::escape_debug).collect();
    ApiError::new(code, format!("in `{vm}`: {message}"))
}

fn older_agent(vm: &str) -> ApiError {
    let text = format!("the agent of `{vm}` is of an older version, which cannot copy files");
    ApiError::new(ErrorCode::OtherBuild, text).with_hint(Hint::UpdateAgent { vm: vm.to_owned() })
}
