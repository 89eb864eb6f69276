//! Process attributes that a program sets at its start: subreaper, inherited descriptors.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// Makes the caller the reaper of its orphaned descendants: prctl(2), PR_SET_CHILD_SUBREAPER.
///
/// # Errors
/// prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// Closes every descriptor except the three standard ones: close_range(2). Call it at the start of
/// a program, before it opens any descriptor.
///
/// # Errors
/// close_range(2); `ENOSYS` before Linux 5.9.
#[expect(unsafe_code, reason = "closes by number")]
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: the caller has opened nothing yet, so no live owner's descriptor is closed.
    match unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks every descriptor except the three standard ones close-on-exec: close_range(2) with
/// CLOSE_RANGE_CLOEXEC. Does nothing before Linux 5.11, where the caller relies on descriptors
/// being opened with close-on-exec. Async-signal-safe.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub(crate) fn close_all_on_exec() {
    // SAFETY: sets a flag of descriptors; closes none.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Takes over the listening socket that the parent passed at this descriptor number
/// (sd_listen_fds(3)) and makes it close-on-exec. Call it at the start of a program, once for each
/// number.
///
/// # Errors
/// `NotFound` if the descriptor is not open; `InvalidInput` if it is not a listening socket;
/// fcntl(2).
#[expect(unsafe_code, reason = "takes over a descriptor by number")]
pub fn inherited_listener(number: RawFd) -> io::Result<UnixListener> {
    // SAFETY: F_GETFD only queries a descriptor number.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the descriptor is open, and by the protocol it was passed to this program, which has
    // created no other owner of that number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    if !rustix::net::sockopt::socket_acceptconn(&fd)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(UnixListener::from(fd))
}
