//! The session socket: passes a client a connection to a guest's agent that outlives the daemon.
//!
//! The client connects to `session.sock` beside the API socket and sends one line of JSON, a
//! [`SessionRequest`]. The daemon answers with one line, a [`SessionAnswer`]. With
//! [`SessionAnswer::Connected`] it passes one file descriptor (SCM_RIGHTS): a stream socket for the
//! agent's HTTP, with the `CONNECT` handshake already done. The daemon takes no further part in
//! that connection. A client that requested `hold` keeps the session connection open as long as the
//! VM with [`crate::vm::Lifetime::Session`] must live.

use serde::{Deserialize, Serialize};

use crate::boot::{BootView, Wait};
use crate::error::ApiError;

/// Maximum length of a line on the session socket, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// A request on the session socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "want", rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionRequest {
    /// Connect to the agent of this VM.
    Agent {
        /// Name, id or prefix.
        vm: String,
        /// The stage of the VM's start to wait for; if absent, a VM that is not running is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<Wait>,
        /// Only a daemon of this build may carry out the request: another one answers
        /// [`SessionAnswer::OtherBuild`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_build: Option<String>,
        /// Whether it is for a command, which lasts as long as the connection to the daemon: its
        /// duration is counted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        command: bool,
        /// The trace that the session belongs to ([`crate::trace::TraceParent`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<String>,
    },
    /// Keep a session-bound VM alive while this connection is open.
    Hold {
        /// Name, id or prefix.
        vm: String,
    },
}

impl SessionRequest {
    /// Sets the expected build, if the request has that field.
    pub fn expect_build(&mut self, build: Option<String>) {
        match self {
            Self::Agent { expect_build, .. } => *expect_build = build,
            // A hold always follows a create request that has checked the build.
            Self::Hold { .. } => {}
        }
    }
}

/// An answer on the session socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum SessionAnswer {
    /// A descriptor is attached to this line.
    Connected {
        /// State of the guest's boot, if the request waited for a stage.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootView>,
    },
    /// The VM is held until this connection closes.
    Held,
    /// The daemon is of another build and did nothing.
    OtherBuild,
    /// The request failed.
    Refused {
        /// The error.
        error: ApiError,
    },
}
