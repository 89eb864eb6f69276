//! What host and guest say to each other: versioned, size-limited, no I/O.
//!
//! Two conversations, both over vsock:
//!
//! 1. **Boot** ([`boot`]): the guest dials the host once on [`HELLO_PORT`] and the two exchange
//!    lines of JSON: `Hello` up, [`boot::GuestConfig`] down, `Ready` or `Failed` up.
//! 2. **Service** ([`http`], [`exec`], [`events`]): the host dials the agent on [`AGENT_PORT`] and
//!    speaks HTTP/1.1; `POST /exec` upgrades to the frames of [`frame`].
//!
//! Everything that arrives is hostile until parsed: each reader has a limit, named here.

pub mod boot;
pub mod bytes;
pub mod events;
pub mod exec;
pub mod frame;
pub mod http;

/// vsock port on the host (CID 2) that a booting guest says hello to.
/// On the host it appears as the Unix socket `<uds>_<HELLO_PORT>`.
pub const HELLO_PORT: u32 = 10_789;

/// vsock port in the guest on which the agent serves HTTP to the host (peer CID 2 only).
pub const AGENT_PORT: u32 = 10_790;

/// The well-known CID of the host, `VMADDR_CID_HOST` in vsock(7).
pub const HOST_CID: u32 = 2;

/// Oldest protocol this build understands.
pub const PROTOCOL_MIN: u32 = 1;

/// Newest protocol this build understands.
pub const PROTOCOL_MAX: u32 = 1;

/// Longest line the host accepts from a booting guest, in bytes, newline included.
pub const MAX_BOOT_LINE: usize = 64 * 1024;

/// Longest configuration line the guest accepts from the host, in bytes, newline included.
pub const MAX_CONFIG_LINE: usize = 16 * 1024 * 1024;

/// Largest JSON body either side accepts in an HTTP message, in bytes.
pub const MAX_JSON_BODY: usize = 1024 * 1024;

/// Largest body of `POST /exec` and `POST /detach`, in bytes: arguments and environment of one
/// program are at most 6 MiB together (execve(2)), which JSON at most doubles.
pub const MAX_EXEC_BODY: usize = 16 * 1024 * 1024;

/// Largest HTTP head (request or status line and headers) either side accepts, in bytes.
pub const MAX_HTTP_HEAD: usize = 16 * 1024;

/// The newest protocol both ranges have in common.
///
/// # Errors
/// The two ranges, when they do not meet.
pub fn negotiate(ours: (u32, u32), theirs: (u32, u32)) -> Result<u32, ProtocolMismatch> {
    let newest = ours.1.min(theirs.1);
    if newest >= ours.0.max(theirs.0) { Ok(newest) } else { Err(ProtocolMismatch { ours, theirs }) }
}

/// Host and guest have no protocol version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no common agent protocol: ours is {}..={}, the other side's {}..={}",
    ours.0, ours.1, theirs.0, theirs.1
)]
pub struct ProtocolMismatch {
    /// Our range, inclusive.
    pub ours: (u32, u32),
    /// The other side's range, inclusive.
    pub theirs: (u32, u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_takes_the_newest_common_version() {
        assert_eq!(negotiate((1, 3), (2, 5)), Ok(3));
        assert_eq!(negotiate((2, 2), (1, 9)), Ok(2));
        assert!(negotiate((1, 1), (2, 3)).is_err());
        assert!(negotiate((4, 9), (2, 3)).is_err());
    }
}
