//! `POST /exec` and `POST /detach`: commands and their results.
//!
//! Both requests carry [`ExecRequest`] as a sized JSON body of at most
//! [`crate::MAX_EXEC_BODY`] bytes. The status is `400` for an invalid request (unknown user,
//! missing folder).
//!
//! - `POST /exec` needs `Upgrade: banger-exec/1`; the answer is `101`, after which both sides speak
//!   [`crate::frame`]. A command that cannot be started is still a `101`, ended by an exit frame
//!   with [`ExitStatus::NotStarted`], so that a client has one path.
//! - `POST /detach` starts a command that needs no client: without input and terminal, its output
//!   in a file of the guest. The answer is [`Detached`].

use serde::{Deserialize, Serialize};

use banger_base::ByteString;

/// Value of the `Upgrade` header.
pub const UPGRADE: &str = "banger-exec/1";

/// A command to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; empty = the user's login shell.
    pub argv: Vec<ByteString>,
    /// Added to the agent's and the user's environment; later entries replace earlier ones.
    #[serde(default)]
    pub env: Vec<(ByteString, ByteString)>,
    /// Working folder; absent = the user's home.
    #[serde(default)]
    pub cwd: Option<ByteString>,
    /// `USER` or `USER:GROUP`, each a name or a number; absent = root. With a group the command has
    /// that group only, without one all groups of the user.
    #[serde(default)]
    pub user: Option<String>,
    /// Run on a pseudo terminal of this size instead of pipes.
    #[serde(default)]
    pub tty: Option<WindowSize>,
    /// The client's `TERM`; a type unknown to the guest is replaced by a known one.
    #[serde(default)]
    pub term: Option<String>,
    /// Whether the client sends stdin frames; otherwise stdin is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Start the program of the machine, which waits for a client
    /// ([`crate::boot::ProgramStart::WithClient`]), on the streams of this client; `argv`, `cwd`
    /// and `user` do not count then. Its end is the machine's.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub program: bool,
}

/// Answer to `POST /detach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Detached {
    /// The command is running.
    Running {
        /// Its process id in the guest; also its process group and session.
        pid: u32,
        /// File in the guest with its output; absent if none could be created, then the output is
        /// discarded.
        log: Option<String>,
    },
    /// It could not be started; fields as in [`ExitStatus::NotStarted`].
    NotStarted {
        /// 126 = found but not executable, 127 = not found.
        code: u8,
        /// Error message, naming the program.
        message: String,
    },
}

/// Terminal size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExitStatus {
    /// Exited with this code, 0–255.
    Exited {
        /// Exit code.
        code: u8,
    },
    /// Terminated by a signal.
    Signaled {
        /// Signal number of the guest.
        signal: u8,
    },
    /// Not started.
    NotStarted {
        /// 126 = found but not executable, 127 = not found.
        code: u8,
        /// Error message, naming the program.
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
