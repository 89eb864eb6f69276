//! Unix sockets for an async program, on the calls of `banger-sys`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use banger_sys::{scm, unix_path};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Connects to the socket at `path`, however long that is.
///
/// # Errors
/// Those of open(2) and connect(2).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    // Waits only while the listener's queue is full, which no other work of ours can change.
    let stream = unix_path::connect(path)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Reads bytes and at most one descriptor that came with them; 0 bytes is the end.
///
/// # Errors
/// Those of recvmsg(2), and more than one descriptor.
pub async fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    stream.async_io(Interest::READABLE, || scm::recv_with_fd(stream, buffer)).await
}
