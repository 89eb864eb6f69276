//! Who is at the other end of a Unix socket: SO_PEERCRED, unix(7).

use std::io;
use std::os::fd::AsFd;

/// The process that connected, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id; the process may be gone, and its id be another's, by now.
    pub pid: u32,
    /// Effective user id; the kernel vouches for it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_was_made_by_ourselves() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }
}
