//! Why a request was not carried out, in words for the person who asked.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Not a request, or one with a value that is out of bounds.
    BadRequest,
    /// It concerns what belongs to somebody else.
    Refused,
    /// There is no such VM here.
    NotFound,
    /// It is in use and stayed so for as long as was waited.
    Busy,
    /// The host lacks something.
    HostNotReady,
    /// No room on a disk.
    NoSpace,
    /// A program that was started did not come up, or ended.
    Died,
    /// A system call failed that should not have.
    Internal,
}

/// A failure: our words, then causes, then what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootError {
    /// What kind.
    pub kind: Kind,
    /// What failed, naming the thing.
    pub message: String,
    /// Why, the nearest cause first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What to do about it.
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
    /// A failure without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A system call failed at doing something; a full disk is told apart.
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

    /// A system call failed on a path.
    pub fn on_path(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::system(format_args!("{doing} `{}`", path.display()), error)
    }

    /// With advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a further failure that came of undoing the first: both are kept.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.causes.push(other.message);
        self.causes.extend(other.causes);
        self
    }
}
