//! `POST /exec`: what to run, and how it ended.
//!
//! The request carries [`ExecRequest`] as a sized JSON body and `Upgrade: banger-exec/1`; the
//! answer is `101`, after which both sides speak [`crate::frame`]. A command that cannot be started
//! is still a `101`, ended by an exit frame with [`ExitStatus::NotStarted`], so that a client has
//! one path. `400` means the request itself was wrong (unknown user, missing folder).

use serde::{Deserialize, Serialize};

/// Value of the `Upgrade` header.
pub const UPGRADE: &str = "banger-exec/1";

/// A command to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; empty = the user's login shell.
    pub argv: Vec<String>,
    /// Added to the agent's and the user's environment; later entries win.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working folder; absent = the user's home.
    #[serde(default)]
    pub cwd: Option<String>,
    /// User name or numeric uid; absent = root.
    #[serde(default)]
    pub user: Option<String>,
    /// Run on a pseudo terminal of this size instead of pipes.
    #[serde(default)]
    pub tty: Option<WindowSize>,
    /// Value of `TERM` when `tty` is set.
    #[serde(default)]
    pub term: Option<String>,
    /// Whether stdin frames will come; otherwise stdin is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
}

/// Terminal size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code, 0–255.
    Exited {
        /// Exit code.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// Signal number of the guest.
        signal: u8,
    },
    /// It never ran.
    NotStarted {
        /// 126 = found but not executable, 127 = not found.
        code: u8,
        /// Why, naming the program.
        message: String,
    },
}

impl ExitStatus {
    /// The exit code a shell would report: the command's own, 128+n for signal n, 126 or 127.
    pub fn shell_code(&self) -> u8 {
        match self {
            Self::Exited { code } | Self::NotStarted { code, .. } => *code,
            Self::Signaled { signal } => 128u8.saturating_add(*signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_codes() {
        assert_eq!(ExitStatus::Exited { code: 7 }.shell_code(), 7);
        assert_eq!(ExitStatus::Signaled { signal: 9 }.shell_code(), 137);
        assert_eq!(ExitStatus::Signaled { signal: 250 }.shell_code(), 255);
    }
}
