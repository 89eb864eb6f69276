//! Unix sockets in the reactor, on the calls of `banger-sys`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use banger_sys::{scm, unix_path};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Time limit for room in the daemon's queue of connections.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the daemon's socket at `path`, which may be longer than a socket address.
///
/// # Errors
/// Those of open(2) and connect(2); `WouldBlock` if the queue stays full.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + QUEUE_TIMEOUT;
    loop {
        match unix_path::connect(path) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                tokio::time::sleep(unix_path::RETRY_PAUSE).await;
            }
            connected => {
                let stream = connected?;
                stream.set_nonblocking(true)?;
                return UnixStream::from_std(stream);
            }
        }
    }
}

/// Reads bytes and at most one descriptor that was sent with them; 0 bytes is end of file.
///
/// # Errors
/// Those of recvmsg(2), and more than one descriptor.
pub async fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    stream.async_io(Interest::READABLE, || scm::recv_with_fd(stream, buffer)).await
}
