//! Protocol between the daemon and `banger-forward`.
//!
//! The daemon starts the program with the gate as standard input and the status pipe as standard
//! output. The program listens on no address until one line of JSON, a [`ForwardConfig`], arrives
//! through the gate; at end of file it exits instead. It answers one line of JSON, a
//! [`ForwardEvent`], and then forwards connections until SIGTERM.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Maximum length of the configuration line in bytes.
pub const MAX_FORWARD_CONFIG: usize = 64 * 1024;
/// Maximum number of connections; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 512;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// All addresses are listened on, or none.
    pub forwards: Vec<Forward>,
}

/// A forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address of the guest to connect to for each client.
    pub to: SocketAddr,
}

/// One line on the status pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ForwardEvent {
    /// All addresses are listened on.
    Listening,
    /// One address cannot be listened on, so none is.
    Failed {
        /// The address.
        listen: SocketAddr,
        /// errno(3), if the system reported one.
        os_error: Option<i32>,
    },
    /// The configuration is invalid.
    Refused {
        /// The reason.
        message: String,
    },
}
