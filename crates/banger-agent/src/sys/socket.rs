//! Socket options that rustix does not know.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Sets the number of received bytes from which on the socket is readable and wakes who waits for
/// it (`SO_RCVLOWAT` of socket(7)). Of vsock sockets before Linux 6.1 it has no effect on poll(2).
///
/// # Errors
/// As setsockopt(2): `EINVAL` for more than the receive buffer.
#[expect(unsafe_code, reason = "rustix does not know SO_RCVLOWAT")]
pub fn set_read_threshold(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open, and the option reads exactly one `int`, which outlives the
    // call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
