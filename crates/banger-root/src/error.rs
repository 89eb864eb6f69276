//! Errors of requests, worded for the user.

use std::fmt;
use std::path::Path;

use banger_base::HostHint;
use banger_base::hint::{self, from_wire, to_wire};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// An error: message, causes, hints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootError {
    /// Kind of error.
    pub kind: Kind,
    /// The failed operation, naming the object.
    pub message: String,
    /// Causes, the nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// Hints.
    #[serde(default, flatten)]
    pub hints: Hints,
}

/// Hints of an error or a finding. On the wire they are `hints`, and their words are `hint` for a
/// daemon that knows only text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireHints", into = "WireHints")]
pub struct Hints(pub Vec<HostHint>);

#[derive(Default, Serialize, Deserialize)]
struct WireHints {
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    hints: Vec<Value>,
}

impl From<Hints> for WireHints {
    fn from(Hints(hints): Hints) -> Self {
        let wire = hints.iter().map(|hint| to_wire(hint, hint.words())).collect();
        Self { hint: hint::words(&hints), hints: wire }
    }
}

impl From<WireHints> for Hints {
    fn from(wire: WireHints) -> Self {
        let read: Vec<HostHint> =
            wire.hints.iter().filter_map(|hint| from_wire(hint, HostHint::text)).collect();
        let words = || wire.hint.map(HostHint::text).into_iter().collect();
        Self(if read.is_empty() { words() } else { read })
    }
}

impl Hints {
    /// The hints in the words of a command line; `None` without hints.
    pub fn words(&self) -> Option<String> {
        hint::words(&self.0)
    }
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
        Self { kind, message: message.into(), causes: Vec::new(), hints: Hints::default() }
    }

    /// An error of a system call in an operation; ENOSPC becomes [`Kind::NoSpace`].
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

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: HostHint) -> Self {
        self.hints.0.push(hint);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_pass_between_versions_of_daemon_and_helper() {
        let error = RootError::new(Kind::HostNotReady, "no tun")
            .with_hint(HostHint::load("tun"))
            .with_hint(HostHint::StopVm);
        let sent = serde_json::to_value(&error).unwrap();
        assert_eq!(serde_json::from_value::<RootError>(sent.clone()).unwrap(), error);
        // An older daemon reads only `hint`.
        assert_eq!(sent["hint"], "load the kernel module: `sudo modprobe tun`; stop a VM");

        let read = |hints: &str| {
            let json = format!(r#"{{"kind": "busy", "message": "m", "causes": []{hints}}}"#);
            serde_json::from_str::<RootError>(&json).unwrap().hints.0
        };
        assert_eq!(
            read(r#", "hint": "from an older helper""#),
            [HostHint::text("from an older helper")]
        );
        let newer = r#", "hint": "fly; stop a VM",
            "hints": [{"hint": "fly", "text": "fly"}, {"hint": "stop_vm", "text": "stop a VM"}]"#;
        assert_eq!(read(newer), [HostHint::text("fly"), HostHint::StopVm]);
        let wordless = r#", "hint": "fly", "hints": [{"hint": "fly"}]"#;
        assert_eq!(read(wordless), [HostHint::text("fly")]);
        for none in ["", r#", "hint": null"#, r#", "hint": null, "hints": []"#] {
            assert_eq!(read(none), [], "{none}");
        }
    }
}
