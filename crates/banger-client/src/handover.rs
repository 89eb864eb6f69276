//! Hands a connection to a port of a guest to another process of the same user.
//!
//! `banger ssh` connects, so that it can report what prevents a connection, and starts ssh, which
//! closes inherited descriptors and starts `banger ssh-proxy`. That fetches the connection,
//! SCM_RIGHTS of unix(7), from an abstract socket, which leaves no file behind.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::time::{Duration, SystemTime};

use banger_agent_proto::MAX_HTTP_HEAD;
use banger_sys::scm::{recv_with_fd, send_with_fd};
use bytes::Bytes;
use tokio::net::{UnixListener, UnixStream};

use crate::port::PortStream;

/// Time limit of the other process for each step.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that one other process of the user may take.
pub struct Handover {
    name: String,
    listener: UnixListener,
    stream: PortStream,
}

impl Handover {
    /// Offers a connection. Call within a tokio runtime.
    ///
    /// # Errors
    /// socket(2), bind(2).
    pub fn new(stream: PortStream) -> io::Result<Self> {
        // Unique, not secret: the peers check each other's user.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("banger-{}-{}", std::process::id(), now.as_nanos());
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { name, listener: UnixListener::from_std(listener)?, stream })
    }

    /// The name for [`take`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Resolves when the connection has been taken.
    ///
    /// # Errors
    /// accept(2), sendmsg(2).
    pub async fn serve(self) -> io::Result<()> {
        let user = rustix::process::geteuid().as_raw();
        loop {
            let (peer, _) = self.listener.accept().await?;
            if peer.peer_cred()?.uid() != user {
                continue;
            }
            let peer = peer.into_std()?;
            peer.set_nonblocking(false)?;
            peer.set_write_timeout(Some(TIMEOUT))?;
            let early = &self.stream.early;
            let length = u32::try_from(early.len()).map_err(io::Error::other)?;
            let stream = self.stream.socket().as_fd();
            send_with_fd(&peer, &length.to_be_bytes(), stream)?;
            return io::Write::write_all(&mut &peer, early);
        }
    }
}

/// Takes the connection that another process of the user offers.
///
/// # Errors
/// No such offer; it is another user's, or malformed.
pub fn take(name: &str) -> io::Result<PortStream> {
    let socket = StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let owner = rustix::net::sockopt::socket_peercred(&socket)?.uid;
    if owner != rustix::process::geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut length = [0; 4];
    let (4, Some(stream)) = recv_with_fd(&socket, &mut length)? else { return Err(malformed()) };
    let length = u64::from(u32::from_be_bytes(length));
    if length > MAX_HTTP_HEAD as u64 {
        return Err(malformed());
    }
    let mut early = Vec::new();
    (&socket).take(length).read_to_end(&mut early)?;
    if early.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let stream = StdStream::from(stream);
    stream.set_nonblocking(true)?;
    Ok(PortStream::new(Bytes::from(early), UnixStream::from_std(stream)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_taken_once_with_its_early_bytes() {
        let (mut guest, ours) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = UnixStream::from_std(ours).unwrap();
        let offer = Handover::new(PortStream::new(Bytes::from_static(b"early"), stream)).unwrap();
        let name = offer.name().to_owned();
        let serving = tokio::spawn(offer.serve());
        let taking = name.clone();
        let taken = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let runtime = runtime.unwrap();
            let _entered = runtime.enter();
            let taken = take(&taking).unwrap();
            assert_eq!(taken.early, "early");
            let mut socket = taken.into_std().unwrap();
            socket.write_all(b"to the guest").unwrap();
        });
        taken.await.unwrap();
        serving.await.unwrap().unwrap();
        let mut read = [0; 12];
        guest.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"to the guest");
        assert!(take(&name).is_err(), "the offer has ended");
    }
}
