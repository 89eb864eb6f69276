//! What the compiler cannot check: a child between fork and exec, descriptors in the reactor.
#![expect(unsafe_code, reason = "pre_exec and AsyncFd::register ask for promises")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Has the child begin a session of its own (setsid(2)), so that neither Ctrl-C nor the end of the
/// terminal reaches it.
pub fn in_new_session(command: &mut Command) {
    let begin = || rustix::process::setsid().map(|_| ()).map_err(Into::into);
    // SAFETY: setsid(2) is async-signal-safe, and the closure neither allocates nor takes a lock.
    unsafe { command.pre_exec(begin) };
}

/// Lets a descriptor be waited for until it can be read.
///
/// # Errors
/// Those of epoll_ctl(2).
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is valid and open as long as it lives, and nobody gets at it mutably.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
