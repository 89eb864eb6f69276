//! Errors of requests, worded for the user.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Invalid request, or a value out of bounds.
    BadRequest,
    /// The object belongs to another user.
    Refused,
    /// There is no such VM.
    NotFound,
    /// The object is in use, and stayed so until the time limit.
    Busy,
    /// The host lacks a program, a driver or a setting.
    HostNotReady,
    /// A disk is full.
    NoSpace,
    /// A started program failed or ended.
    Died,
    /// An unexpected error of a system call.
    Internal,
}

/// An error: message, causes, advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootError {
    /// Kind of error.
    pub kind: Kind,
    /// The failed operation, naming the object.
    pub message: String,
    /// Causes, the nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// Advice.
    #[serde(default)]
    pub hint: Option<String>,
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RootError {}

impl From<banger_base::BadId> for RootError {
    fn from(error: banger_base::BadId) -> Self {
        Self::new(Kind::BadRequest, error.to_string())
    }
}

impl RootError {
    /// An error without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// An error of a system call in an operation; ENOSPC becomes [`Kind::Full`].
    pub fn system(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => Kind::NoSpace,
            std::io::ErrorKind::ResourceBusy => Kind::Busy,
            _ => Kind::Internal,
        };
        let mut failure = Self::new(kind, format!("cannot {doing}"));
        failure.causes.push(error.to_string());
        failure
    }

    /// An error of a system call on a path.
    pub fn on_path(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::system(format_args!("{doing} `{}`", path.display()), error)
    }

    /// Sets the advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds an error of undoing the operation; both are reported.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.causes.push(other.message);
        self.causes.extend(other.causes);
        self
    }
}
