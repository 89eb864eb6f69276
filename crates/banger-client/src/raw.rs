//! Requests of any kind to any route, for scripts.

use banger_api::{ApiError, ErrorCode, routes};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use tokio::io::AsyncRead;

use crate::call::Idempotency;
use crate::client::Client;
use crate::http::Call;
use crate::upload::Uploaded;

/// A request.
#[derive(Debug, Clone)]
pub struct RawRequest {
    /// Method, such as `GET`.
    pub method: String,
    /// Path with its query, already encoded.
    pub path: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

/// An answer of any status, whose body arrives piece by piece.
pub struct RawAnswer {
    /// Status.
    pub status: u16,
    /// Headers in their order; bytes that are not ASCII are replaced.
    pub headers: Vec<(String, String)>,
    body: Incoming,
}

impl RawAnswer {
    fn new(answer: Response<Incoming>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = answer.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        Self {
            status: answer.status().as_u16(),
            headers: headers.collect(),
            body: answer.into_body(),
        }
    }

    /// Value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection ended before the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let text = "the connection to the daemon ended during its answer";
                    return Err(ApiError::new(ErrorCode::Interrupted, text).caused_by(&error));
                }
            }
        }
    }
}

fn bad(what: &str, error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, format!("{what} of the request is invalid"))
        .caused_by(error)
}

impl RawRequest {
    fn method(&self) -> Result<Method, ApiError> {
        Method::from_bytes(self.method.as_bytes()).map_err(|error| bad("the method", &error))
    }

    /// Checks path and headers.
    fn builder(&self) -> Result<Builder, ApiError> {
        let mut builder = Request::builder().method(self.method()?).uri(&self.path);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        match builder.headers_ref() {
            Some(_) => Ok(builder),
            None => match builder.body(()) {
                Err(error) => Err(bad("the path or a header", &error)),
                Ok(_) => Err(ApiError::new(ErrorCode::BadRequest, "the request is invalid")),
            },
        }
    }
}

impl Client {
    /// Sends a request with this body, empty for none. It is repeated after a start of the daemon
    /// only if a repetition has no further effect.
    ///
    /// # Errors
    /// An invalid request, or no answer. An error of the daemon is an answer.
    pub async fn raw(&self, request: RawRequest, body: Bytes) -> Result<RawAnswer, ApiError> {
        request.builder()?;
        let keyed = request
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(routes::IDEMPOTENCY_HEADER));
        let method = request.method()?;
        let idempotency = match method {
            Method::GET | Method::PUT | Method::DELETE => Idempotency::Idempotent,
            _ if keyed => Idempotency::Idempotent,
            _ => Idempotency::NotIdempotent,
        };
        let mut call = Call::new(method, request.path, body);
        for (name, value) in request.headers {
            call = call.with_header(name, value);
        }
        Ok(RawAnswer::new(self.answer(call, idempotency).await?))
    }

    /// Sends a request whose body is read meanwhile.
    ///
    /// # Errors
    /// An invalid request, a read error of the body, or no answer.
    pub async fn raw_upload(
        &self,
        request: RawRequest,
        reader: impl AsyncRead + Unpin,
    ) -> Result<RawAnswer, ApiError> {
        let builder = request.builder()?;
        self.ensure_daemon().await?;
        match self.upload(builder, reader, |_| {}).await? {
            Uploaded::Answered(answer) => Ok(RawAnswer::new(answer)),
            Uploaded::Unreadable(error) => {
                let text = "the body of the request cannot be read";
                Err(ApiError::new(ErrorCode::BadRequest, text).caused_by(&error))
            }
        }
    }
}
