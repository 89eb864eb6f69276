//! Errors as they travel: a code that scripts may rely on, words, a hint, the operation.

use serde::{Deserialize, Serialize};

use crate::exit;
use crate::ids::OpId;

/// What kind of failure it is. Stable; each has an exit code and an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is not well-formed or a value is out of its limits.
    BadRequest,
    /// No VM, image, kernel or operation of that name.
    NotFound,
    /// A prefix that more than one thing has.
    Ambiguous,
    /// The name is taken.
    NameTaken,
    /// Not possible in the present state.
    WrongState,
    /// Used by something else.
    InUse,
    /// Another operation is in the way.
    Busy,
    /// A program or device that the host must have is missing.
    HostNotReady,
    /// Not enough disk.
    NoSpace,
    /// The state folder cannot be written.
    ReadOnly,
    /// A file of ours is damaged.
    Corrupt,
    /// The guest did not come up, or did not answer.
    GuestFailed,
    /// The VMM ended unexpectedly.
    VmmDied,
    /// Took longer than allowed.
    Timeout,
    /// Cancelled by request.
    Cancelled,
    /// The daemon was restarted or killed meanwhile.
    Interrupted,
    /// The daemon cannot be reached, started or understood.
    DaemonUnavailable,
    /// Anything else.
    Internal,
}

impl ErrorCode {
    /// The CLI's exit code for this kind of failure.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => exit::USAGE,
            Self::NotFound | Self::Ambiguous => exit::NOT_FOUND,
            Self::NameTaken | Self::WrongState | Self::InUse | Self::Busy => exit::REFUSED,
            Self::HostNotReady | Self::NoSpace | Self::ReadOnly => exit::HOST_NOT_READY,
            Self::Corrupt
            | Self::GuestFailed
            | Self::VmmDied
            | Self::Timeout
            | Self::Cancelled
            | Self::Interrupted
            | Self::DaemonUnavailable
            | Self::Internal => exit::FAILED,
        }
    }

    /// The HTTP status of an answer with this code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::Ambiguous | Self::NameTaken | Self::WrongState | Self::InUse | Self::Busy => 409,
            Self::HostNotReady | Self::NoSpace | Self::ReadOnly | Self::DaemonUnavailable => 503,
            Self::Timeout => 504,
            Self::Corrupt
            | Self::GuestFailed
            | Self::VmmDied
            | Self::Cancelled
            | Self::Interrupted
            | Self::Internal => 500,
        }
    }
}

/// A failure, ready to be shown.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error,
)]
#[error("{message}")]
pub struct ApiError {
    /// Kind.
    pub code: ErrorCode,
    /// What failed, naming the thing; one line, no full stop.
    pub message: String,
    /// Why, outermost cause first, each one line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The operation it happened in; finds it in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
}

impl ApiError {
    /// An error without causes or hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None, operation: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with the chain of sources of `error` as causes, `error` itself first.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.causes.push(error.to_string());
        let mut next = error.source();
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// The same error within an operation.
    #[must_use]
    pub fn in_operation(mut self, operation: &OpId) -> Self {
        self.operation.get_or_insert_with(|| operation.clone());
        self
    }
}
