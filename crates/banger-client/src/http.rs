//! One HTTP/1.1 connection over a Unix socket, and answers read within limits.

use std::time::Duration;

use banger_api::{ApiError, ErrorCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest answer of the daemon, in bytes: some 100 000 VMs.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest wait for the head of an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How a request did not get an answer.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It never left.
    #[error("no connection")]
    Unsent(#[source] std::io::Error),
    /// It may have been heard.
    #[error("the connection ended before the answer came")]
    Unanswered(#[source] hyper::Error),
    /// Nothing came in time.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
}

/// A request, ready to be sent more than once.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path, already encoded.
    pub path: String,
    /// JSON body, empty for none.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Call {
    /// A request without body.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into(), Bytes::new())
    }

    /// A request to remove something.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into(), Bytes::new())
    }

    /// A request with a JSON body.
    ///
    /// # Errors
    /// A value that JSON cannot hold; none of ours is one.
    pub fn post(path: impl Into<String>, body: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| {
            ApiError::new(ErrorCode::Internal, "the request cannot be written as JSON")
                .caused_by(&error)
        })?;
        Ok(Self::new(Method::POST, path.into(), body.into()))
    }

    fn new(method: Method, path: String, body: Bytes) -> Self {
        Self { method, path, body, headers: Vec::new() }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn build(self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request =
            Request::builder().method(self.method).uri(self.path).header("host", "localhost");
        if !self.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body))
    }
}

/// An open connection; requests go one after the other.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Begins to speak HTTP on a stream whose answers have a head of at most `max_head` bytes.
    pub async fn open<S>(stream: S, max_head: usize) -> Result<Self, Lost>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(max_head)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Lost::Unanswered)?;
        // Its errors arrive at whoever waits for an answer too.
        tokio::spawn(connection.with_upgrades());
        Ok(Self(sender))
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&mut self, call: Call) -> Result<Response<Incoming>, Lost> {
        let request = call.build().map_err(|error| Lost::Unsent(std::io::Error::other(error)))?;
        match tokio::time::timeout(ANSWER_TIMEOUT, self.0.send_request(request)).await {
            Ok(answer) => answer.map_err(Lost::Unanswered),
            Err(_) => Err(Lost::Silent),
        }
    }
}

/// The whole body, at most `limit` bytes.
///
/// # Errors
/// A longer body, or an end before it is whole; in words for `whom`.
pub async fn body(answer: Incoming, limit: usize, whom: &str) -> Result<Bytes, ApiError> {
    let failed = |cause: &dyn std::error::Error| {
        let text = format!("{whom} did not give a whole answer of at most {limit} bytes");
        ApiError::new(ErrorCode::DaemonUnavailable, text).caused_by(cause)
    };
    let whole = Limited::new(answer, limit).collect();
    match tokio::time::timeout(ANSWER_TIMEOUT, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(failed(&*error)),
        Err(_) => Err(failed(&Lost::Silent)),
    }
}

/// What an answer of the daemon says.
///
/// # Errors
/// The daemon's own, or an answer that is not one of ours.
pub async fn decode<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ApiError> {
    let (status, bytes) = whole(answer).await?;
    serde_json::from_slice(&bytes).map_err(|error| not_ours(status).caused_by(&error))
}

/// Only whether the daemon agreed.
///
/// # Errors
/// The daemon's own.
pub async fn accept(answer: Response<Incoming>) -> Result<(), ApiError> {
    whole(answer).await.map(|_| ())
}

async fn whole(answer: Response<Incoming>) -> Result<(StatusCode, Bytes), ApiError> {
    let status = answer.status();
    let bytes = body(answer.into_body(), MAX_ANSWER, "the daemon").await?;
    if status.is_success() {
        return Ok((status, bytes));
    }
    Err(serde_json::from_slice::<ApiError>(&bytes).unwrap_or_else(|_| not_ours(status)))
}

fn not_ours(status: StatusCode) -> ApiError {
    let text = format!("the daemon gave an answer ({status}) that this program does not know");
    ApiError::new(ErrorCode::DaemonUnavailable, text)
        .with_hint("`banger daemon stop` ends it; the next command starts the one installed here")
}
