//! Errors of the API: a stable code, a message, causes, hints and the operation.

use serde::{Deserialize, Serialize};

use crate::exit;
use crate::hint::{self, Hint};
use crate::ids::OpId;

/// Kind of an error. Stable; each has an exit code and an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed, or a value is out of bounds.
    BadRequest,
    /// There is no VM, image, kernel or operation with that name.
    NotFound,
    /// A prefix matches more than one object.
    Ambiguous,
    /// The name is in use.
    NameTaken,
    /// Not possible in the present state.
    WrongState,
    /// In use by another object.
    InUse,
    /// Another operation is in progress.
    Busy,
    /// The host lacks a required program or device.
    HostNotReady,
    /// Made by another build of banger, with a driver or step that this one does not have.
    OtherBuild,
    /// The disk is full.
    NoSpace,
    /// The state folder cannot be written.
    ReadOnly,
    /// A file of banger is damaged.
    Corrupt,
    /// The guest did not start, or did not answer.
    GuestFailed,
    /// The VMM ended unexpectedly.
    VmmDied,
    /// A time limit was exceeded.
    Timeout,
    /// Cancelled by request.
    Cancelled,
    /// The daemon was restarted or killed during the operation.
    Interrupted,
    /// The daemon cannot be reached or started, or has an incompatible version.
    DaemonUnavailable,
    /// An internal error.
    Internal,
}

impl ErrorCode {
    /// The kind of an error of the operating system.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Self::ReadOnly,
            _ => Self::Internal,
        }
    }

    /// The CLI's exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => exit::USAGE,
            Self::NotFound | Self::Ambiguous => exit::NOT_FOUND,
            Self::NameTaken | Self::WrongState | Self::InUse | Self::Busy => exit::REFUSED,
            Self::HostNotReady | Self::OtherBuild | Self::NoSpace | Self::ReadOnly => {
                exit::HOST_NOT_READY
            }
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

    /// The HTTP status of an answer with this kind.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::Ambiguous | Self::NameTaken | Self::WrongState | Self::InUse | Self::Busy => 409,
            Self::HostNotReady
            | Self::OtherBuild
            | Self::NoSpace
            | Self::ReadOnly
            | Self::DaemonUnavailable => 503,
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

/// An error of the API.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error,
)]
#[error("{message}")]
pub struct ApiError {
    /// Kind.
    pub code: ErrorCode,
    /// The failed operation, naming the object; one line, no full stop.
    pub message: String,
    /// Causes, outermost first, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// Advice.
    #[serde(default, alias = "hint", deserialize_with = "hint::read")]
    #[serde(serialize_with = "hint::write", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<hint::WordedHint>)]
    pub hints: Vec<Hint>,
    /// The failed operation's id, for finding it in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
}

impl ApiError {
    /// An error without causes or hints.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            operation: None,
        }
    }

    /// Adds advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Its advice in the words of the command line.
    pub fn hint(&self) -> Option<String> {
        hint::words(&self.hints)
    }

    /// Message and causes on one line.
    pub fn line(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        std::iter::once(self.message.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
    }

    /// Adds the message and the causes of a second error, such as that of an undo.
    pub fn also(&mut self, other: Self) {
        self.causes.push(other.message);
        self.causes.extend(other.causes);
    }

    /// Sets `error` and the chain of its sources as causes.
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

    /// Sets the operation.
    #[must_use]
    pub fn in_operation(mut self, operation: &OpId) -> Self {
        self.operation.get_or_insert_with(|| operation.clone());
        self
    }
}
