//! One HTTP/1.1 connection over a Unix socket, and answers read within limits.

use std::borrow::Cow;
use std::time::Duration;

use banger_api::{ApiError, ErrorCode, Hint};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

/// Maximum size of an answer of the daemon, in bytes: about 100 000 VMs.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Time limit for the head of an answer, and for its body.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request was not sent.
    #[error("no connection")]
    NotSent(#[source] std::io::Error),
    /// The request may have been received.
    #[error("the connection ended before the answer came")]
    NoAnswer(#[source] hyper::Error),
    /// No answer in time.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
}

/// A request that can be sent more than once.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path, already encoded.
    pub path: String,
    /// JSON body, empty for none.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(Cow<'static, str>, String)>,
}

impl Call {
    /// A request without body.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into(), Bytes::new())
    }

    /// A DELETE request without body.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into(), Bytes::new())
    }

    /// A request with a JSON body.
    ///
    /// # Errors
    /// A value that cannot be represented as JSON.
    pub fn post(path: impl Into<String>, body: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| {
            ApiError::new(ErrorCode::Internal, "the request cannot be written as JSON")
                .caused_by(&error)
        })?;
        Ok(Self::new(Method::POST, path.into(), body.into()))
    }

    /// A request.
    pub fn new(method: Method, path: String, body: Bytes) -> Self {
        Self { method, path, body, headers: Vec::new() }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn build(self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request =
            Request::builder().method(self.method).uri(self.path).header("host", "localhost");
        let typed = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !self.body.is_empty() && !typed {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in self.headers {
            request = request.header(&*name, value);
        }
        request.body(Full::new(self.body))
    }
}

/// An open connection; requests are sent one after the other.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Starts HTTP on a stream; the head of an answer has at most `max_head` bytes.
    ///
    /// # Errors
    /// `NoAnswer`: the stream failed.
    pub async fn open<S>(stream: S, max_head: usize) -> Result<Self, CallError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(max_head)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(CallError::NoAnswer)?;
        // Its errors are reported by the requests too.
        tokio::spawn(connection.with_upgrades());
        Ok(Self(sender))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// `NotSent`: the request is invalid. `NoAnswer`: the connection ended. `TimedOut`: no head
    /// of an answer arrived within the time limit.
    pub async fn send(&mut self, call: Call) -> Result<Response<Incoming>, CallError> {
        let request =
            call.build().map_err(|error| CallError::NotSent(std::io::Error::other(error)))?;
        match tokio::time::timeout(ANSWER_TIMEOUT, self.0.send_request(request)).await {
            Ok(answer) => answer.map_err(CallError::NoAnswer),
            Err(_) => Err(CallError::TimedOut),
        }
    }
}

/// The whole body, at most `limit` bytes; `sender` is named in errors.
///
/// # Errors
/// A longer body, a connection that ends before the body, or no end in time.
pub async fn body(answer: Incoming, limit: usize, sender: &str) -> Result<Bytes, ApiError> {
    let failed = |cause: &dyn std::error::Error| {
        let text = format!("{sender} did not send a whole answer of at most {limit} bytes");
        ApiError::new(ErrorCode::DaemonUnavailable, text).caused_by(cause)
    };
    let whole = Limited::new(answer, limit).collect();
    match tokio::time::timeout(ANSWER_TIMEOUT, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(failed(&*error)),
        Err(_) => Err(failed(&CallError::TimedOut)),
    }
}

/// Decodes an answer of the daemon.
///
/// # Errors
/// The daemon's error, or an answer of an unknown shape.
pub async fn decode<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ApiError> {
    let (status, bytes) = whole(answer).await?;
    serde_json::from_slice(&bytes).map_err(|error| unknown_answer(status).caused_by(&error))
}

/// Checks the status of an answer.
///
/// # Errors
/// The daemon's error, or an answer of an unknown shape.
pub async fn accept(answer: Response<Incoming>) -> Result<(), ApiError> {
    whole(answer).await.map(|_| ())
}

async fn whole(answer: Response<Incoming>) -> Result<(StatusCode, Bytes), ApiError> {
    let status = answer.status();
    let bytes = body(answer.into_body(), MAX_ANSWER, "the daemon").await?;
    if status.is_success() {
        return Ok((status, bytes));
    }
    Err(serde_json::from_slice::<ApiError>(&bytes).unwrap_or_else(|_| unknown_answer(status)))
}

fn unknown_answer(status: StatusCode) -> ApiError {
    let text = format!("the daemon gave an answer ({status}) that this program does not know");
    ApiError::new(ErrorCode::DaemonUnavailable, text).with_hint(Hint::ReplaceDaemon)
}
