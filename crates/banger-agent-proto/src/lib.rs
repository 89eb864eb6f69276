//! The protocols between host and guest agent: versioned, with size limits, without I/O.
//!
//! Two protocols, both over vsock:
//!
//! 1. **Boot** ([`boot`]): the guest connects to the host once on [`HELLO_PORT`]; both exchange
//!    lines of JSON: `Hello` from the guest, [`boot::GuestConfig`] from the host, then `Ready` or
//!    `Failed` from the guest.
//! 2. **Service** ([`http`], [`exec`], [`archive`], [`events`]): the host connects to the agent on
//!    [`AGENT_PORT`] and uses HTTP/1.1; `POST /exec` upgrades to the frames of [`frame`].
//!
//! Received data is untrusted until it is parsed: each reader has a size limit, defined here.

pub mod archive;
pub mod boot;
pub mod buffer;
pub mod events;
pub mod exec;
pub mod forward;
pub mod frame;
pub mod http;
pub mod ssh;

pub use banger_base::{ByteString, PROGRAM_ENDED};

/// vsock port on the host (CID 2) to which a booting guest connects.
/// On the host it appears as the Unix socket `<uds>_<HELLO_PORT>`.
pub const HELLO_PORT: u32 = 10_789;

/// vsock port in the guest on which the agent serves HTTP to the host (peer CID 2 only).
pub const AGENT_PORT: u32 = 10_790;

/// The well-known CID of the host, `VMADDR_CID_HOST` in vsock(7).
pub const HOST_CID: u32 = 2;

/// Oldest protocol version that this build supports.
pub const PROTOCOL_MIN: u32 = 1;

/// Newest protocol version that this build supports.
pub const PROTOCOL_MAX: u32 = 1;

/// Maximum length of a line from a booting guest in bytes, including its newline.
pub const MAX_BOOT_LINE: usize = 64 * 1024;

/// Maximum length of the configuration line in bytes, including its newline.
pub const MAX_CONFIG_LINE: usize = 16 * 1024 * 1024;

/// Maximum size of a JSON body in an HTTP message, in bytes.
pub const MAX_JSON_BODY: usize = 1024 * 1024;

/// Maximum size of the body of `POST /exec` and `POST /detach` in bytes: arguments and environment
/// of a program are at most 6 MiB (execve(2)), in JSON at most twice as much.
pub const MAX_EXEC_BODY: usize = 16 * 1024 * 1024;

/// Maximum size of an HTTP head (request or status line, and headers) in bytes.
pub const MAX_HTTP_HEAD: usize = 16 * 1024;

/// The newest protocol version in both ranges.
///
/// # Errors
/// The ranges have no version in common.
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
