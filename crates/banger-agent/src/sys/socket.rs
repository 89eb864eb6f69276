//! Socket options that rustix does not know.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Sets the number of received bytes from which on the socket is readable and wakes who waits for
/// it (`SO_RCVLOWAT` of socket(7)). Of vsock sockets before Linux 6.1 it has no effect on poll(2).
///
/// # Errors
/// As setsockopt(2): `EINVAL` for more than the receive buffer.
pub fn set_read_threshold(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value)
}

/// Sets an option of a socket whose kind reads a `T`.
///
/// # Errors
/// As setsockopt(2).
#[expect(unsafe_code, reason = "options that rustix does not know")]
pub fn set_option<T: Copy>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel reads at most the size that it is told of
    // `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
