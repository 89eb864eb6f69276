//! The peer of a Unix socket: its credentials (SO_PEERCRED, unix(7)) and its unread bytes.

use std::io;
use std::os::fd::AsFd;

/// The process that connected, at the time of connect(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id; the process may have ended and its id been reused.
    pub pid: u32,
    /// Effective user id, checked by the kernel.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The peer of a connected stream.
///
/// # Errors
/// getsockopt(2).
pub fn peer(stream: impl AsFd) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(Peer {
        pid: u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or_default(),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    })
}

/// Memory of the bytes that the peer has not read yet; 0 if it has read all (SIOCOUTQ of unix(7),
/// `unix_outq_len` of the kernel).
///
/// # Errors
/// ioctl(2).
#[expect(unsafe_code, reason = "rustix has no safe call for this ioctl")]
pub fn unread_bytes(stream: impl AsFd) -> io::Result<usize> {
    use rustix::ioctl::{Getter, Opcode, ioctl};
    const TIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
    // SAFETY: TIOCOUTQ writes one `int`, and the getter provides space for one.
    let count: libc::c_int = unsafe { ioctl(stream, Getter::<TIOCOUTQ, libc::c_int>::new()) }?;
    Ok(usize::try_from(count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_socketpair_is_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }

    #[test]
    fn bytes_count_until_they_are_read() {
        use std::io::{Read, Write};
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_bytes(&ours).unwrap(), 0);
        ours.write_all(b"four").unwrap();
        assert!(unread_bytes(&ours).unwrap() >= 4);
        theirs.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(unread_bytes(&ours).unwrap(), 0);
    }
}
