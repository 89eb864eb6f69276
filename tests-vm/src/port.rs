//! Ports of this host.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::net::TcpListener;

/// A port of the loopback address that nothing listens on now.
///
/// # Panics
/// There is none.
pub fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
