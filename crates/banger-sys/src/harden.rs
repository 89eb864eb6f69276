//! What a process takes from itself.

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

/// Closes every descriptor but the three standard ones: close_range(2). For the very start of a
/// program, before anything in it owns a descriptor.
///
/// # Errors
/// close_range(2); `ENOSYS` before Linux 5.9.
#[expect(unsafe_code, reason = "closes by number")]
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: the caller has opened nothing yet, so no owner of a descriptor is left with a number
    // that means something else later.
    match unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks every descriptor but the three standard ones close-on-exec: close_range(2) with
/// CLOSE_RANGE_CLOEXEC. Before Linux 5.11 nothing happens: there the caller relies on having opened
/// all of them so. Async-signal-safe.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub(crate) fn close_all_on_exec() {
    // SAFETY: sets a flag of descriptors, closes none.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// The listening socket that whoever started this program left at a number: sd_listen_fds(3).
/// Close-on-exec from here on. For the very start of a program; call it once for a number.
///
/// # Errors
/// fcntl(2); there is none, or it is no socket that listens.
#[expect(unsafe_code, reason = "takes over a descriptor by number")]
pub fn inherited_listener(number: RawFd) -> io::Result<UnixListener> {
    // SAFETY: asks about a number, owned or not.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: it is open, and by the protocol it was left for this program, which has given none
    // of that number to anybody else.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    if !rustix::net::sockopt::socket_acceptconn(&fd)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(UnixListener::from(fd))
}
