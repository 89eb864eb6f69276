//! Errors as the SDKs expect them: of the REST API with a status, of Connect RPC with a code.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use banger_api::{ApiError, ErrorCode};
use serde_json::{Value, json};

/// Kind of an error: codes of Connect (connectrpc.com/docs/protocol), and two that only HTTP has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A value is wrong.
    InvalidArgument,
    /// The key or token is wrong.
    Unauthenticated,
    /// The user of the guest may not do it.
    PermissionDenied,
    /// A file or command does not exist.
    NotFound,
    /// A file exists.
    AlreadyExists,
    /// A limit is reached.
    ResourceExhausted,
    /// Not possible in this state.
    FailedPrecondition,
    /// This server does not have it.
    Unimplemented,
    /// Something failed.
    Internal,
    /// The daemon or the agent does not answer.
    Unavailable,
    /// A time limit was exceeded.
    DeadlineExceeded,
    /// There is no such sandbox: the answer of the proxy that stands before E2B's sandboxes.
    Gone,
    /// The body of a request is too large.
    TooLarge,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Gone => StatusCode::BAD_GATEWAY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::ResourceExhausted | Self::TooLarge => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable | Self::Gone => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }
}

/// An error as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind.
    pub code: Code,
    /// The reason, and what to do.
    pub message: String,
}

impl Failure {
    /// An error.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A wrong value.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// There is no such sandbox. SDKs look for the words `was not found`.
    pub fn gone(id: &str) -> Self {
        let id = banger_api::excerpt(id);
        let text = format!(
            "the sandbox `{id}` was not found: it has ended, or another server has made it"
        );
        Self::new(Code::Gone, text)
    }

    /// The answer of the REST API, and of the requests that are neither REST nor RPC.
    pub fn rest(&self) -> Response {
        let status = self.code.status();
        answer(status, &json!({ "code": status.as_u16(), "message": self.message }))
    }

    /// The answer of an RPC. What E2B's proxy answers instead of the agent is no Connect error.
    pub fn rpc(&self) -> Response {
        match self.code {
            Code::Gone => self.rest(),
            code => answer(code.status(), &self.value()),
        }
    }

    /// The error as Connect has it.
    pub fn value(&self) -> Value {
        json!({ "code": self.code.name(), "message": self.message })
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The SDKs repeat some requests otherwise, such as one for a sandbox that has ended.
    headers.insert("should-retry", HeaderValue::from_static("false"));
    response
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let code = match error.code {
            ErrorCode::BadRequest | ErrorCode::Ambiguous => Code::InvalidArgument,
            ErrorCode::NotFound => Code::NotFound,
            ErrorCode::NameTaken | ErrorCode::InUse => Code::AlreadyExists,
            ErrorCode::WrongState | ErrorCode::Busy => Code::FailedPrecondition,
            ErrorCode::NoSpace => Code::ResourceExhausted,
            ErrorCode::Timeout => Code::DeadlineExceeded,
            ErrorCode::HostNotReady
            | ErrorCode::OtherBuild
            | ErrorCode::ReadOnly
            | ErrorCode::DaemonUnavailable => Code::Unavailable,
            ErrorCode::Corrupt
            | ErrorCode::GuestFailed
            | ErrorCode::VmmDied
            | ErrorCode::Cancelled
            | ErrorCode::Interrupted
            | ErrorCode::Internal => Code::Internal,
        };
        let mut message = error.message.clone();
        for cause in &error.causes {
            message.push_str(": ");
            message.push_str(cause);
        }
        if let Some(hint) = error.hint() {
            message.push_str("; ");
            message.push_str(&hint);
        }
        Self { code, message }
    }
}
