//! The session socket: how a client gets a connection to a guest's agent that outlives the daemon.
//!
//! The client connects to `session.sock` beside the API's socket and sends one line of JSON, a
//! [`SessionRequest`]. The daemon answers with one line, a [`SessionAnswer`]; with
//! [`SessionAnswer::Connected`] comes one file descriptor (SCM_RIGHTS): a stream socket on which
//! the agent's HTTP is spoken, the `CONNECT` handshake already done. From then on the daemon is out
//! of the way. A client that asked for `hold` keeps this connection open as long as it wants a VM
//! with [`crate::vm::Lifetime::Session`] to live.

use serde::{Deserialize, Serialize};

use crate::boot::{BootView, Wait};
use crate::error::ApiError;

/// Longest line on the session socket, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "want", rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionRequest {
    /// A connection to the agent of this VM.
    Agent {
        /// Name, id or prefix.
        vm: String,
        /// Which stage of the VM's start is waited for; a VM that does not run is refused where
        /// this is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<Wait>,
        /// Only a daemon of this build is to carry it out: another one answers
        /// [`SessionAnswer::OtherBuild`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_build: Option<String>,
    },
    /// Keep a session-bound VM alive while this connection is open.
    Hold {
        /// Name, id or prefix.
        vm: String,
    },
}

impl SessionRequest {
    /// Sets the build that is expected, where the request can carry one.
    pub fn expect_build(&mut self, build: Option<String>) {
        match self {
            Self::Agent { expect_build, .. } => *expect_build = build,
            // A VM is held by the client that has just made it.
            Self::Hold { .. } => {}
        }
    }
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum SessionAnswer {
    /// A descriptor comes with this line.
    Connected {
        /// How far the guest has booted, where a stage was waited for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootView>,
    },
    /// Held until this connection closes.
    Held,
    /// The daemon is of another build than was expected, and did nothing.
    OtherBuild,
    /// Not possible.
    Refused {
        /// Why.
        error: ApiError,
    },
}
