//! What daemon and `banger-forward` say to each other.
//!
//! The daemon starts the program with the gate as standard input and the status pipe as standard
//! output. It listens nowhere until one line of JSON, a [`ForwardConfig`], has come through the
//! gate; end of file before that means exit. It answers one line of JSON, a [`ForwardEvent`], and
//! from then on carries bytes until SIGTERM.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Longest configuration line in bytes.
pub const MAX_FORWARD_CONFIG: u64 = 64 * 1024;
/// Connections that are carried at the same time; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 512;

/// What to carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// All of them, or none.
    pub forwards: Vec<Forward>,
}

/// One way from a port of the host to one of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What to connect to for each client.
    pub to: SocketAddr,
}

/// One line on the status pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ForwardEvent {
    /// All addresses are listened on.
    Listening,
    /// One could not be listened on, so none is.
    Failed {
        /// Which one.
        listen: SocketAddr,
        /// errno(3), where the system said why.
        os_error: Option<i32>,
    },
    /// The configuration was not understood.
    Refused {
        /// Why.
        message: String,
    },
}
