//! One client and its connection to the guest: two flows of bytes that end independently.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Size of the buffer of one direction in bytes.
const BUFFER: usize = 32 * 1024;
/// Idle time before the peer is probed, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … the time between probes, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// … and the number of unanswered probes that end the connection.
const KEEPALIVE_PROBES: u32 = 4;

/// Disables Nagle's algorithm, and enables keepalive probes: tcp(7).
///
/// # Errors
/// setsockopt(2).
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Closes a connection with a reset, so that the peer does not take it for complete: socket(7),
/// SO_LINGER of zero.
pub fn reset(stream: TcpStream) {
    // If that fails, it is closed without a reset.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// The state of one flow that the other flow needs.
#[derive(Default)]
struct Flow {
    /// Its source ended and everything was written.
    complete: AtomicBool,
    /// Its sink does not accept bytes any more.
    broken: AtomicBool,
}

impl Flow {
    fn is_over(&self) -> bool {
        self.complete.load(Ordering::Relaxed) || self.broken.load(Ordering::Relaxed)
    }
}

/// Copies bytes in both directions until both sources have ended.
///
/// # Errors
/// A source failed; or a sink failed, and everything that it had sent before was copied. The caller
/// must [`reset`] both ends.
pub async fn carry(client: &mut TcpStream, guest: &mut TcpStream) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_guest, to_guest) = guest.split();
    let (up, down) = (Flow::default(), Flow::default());
    tokio::try_join!(
        pump(from_client, to_guest, &up, &down),
        pump(from_guest, to_client, &down, &up),
    )?;
    Ok(())
}

/// Copies bytes in one direction, then closes the sink for writing.
async fn pump(
    mut source: ReadHalf<'_>,
    mut sink: WriteHalf<'_>,
    own: &Flow,
    other: &Flow,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = source.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        if sink.write_all(&buffer[..count]).await.is_err() {
            own.broken.store(true, Ordering::Relaxed);
            return discard(source, buffer, other).await;
        }
    }
    if other.broken.load(Ordering::Relaxed) {
        // A clean end would mean that the bytes of the other flow have arrived.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    sink.shutdown().await?;
    own.complete.store(true, Ordering::Relaxed);
    Ok(())
}

/// Continues reading after the sink failed: bytes that the sink sent before are still copied in the
/// other direction, and an error of the source ends both flows.
async fn discard(mut source: ReadHalf<'_>, mut buffer: Vec<u8>, other: &Flow) -> io::Result<()> {
    if other.is_over() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    while source.read(&mut buffer).await? > 0 {}
    // The other flow ends with an error, since this one is broken.
    Ok(())
}
