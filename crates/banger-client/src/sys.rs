//! Unsafe calls: a child between fork and exec, descriptors in the reactor.
#![expect(unsafe_code, reason = "pre_exec and AsyncFd::register are unsafe functions")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Starts the child in a session of its own (setsid(2)), so that Ctrl-C and a hangup of the
/// terminal do not reach it.
pub fn in_new_session(command: &mut Command) {
    let begin = || rustix::process::setsid().map(|_| ()).map_err(Into::into);
    // SAFETY: setsid(2) is async-signal-safe, and the closure neither allocates nor takes a lock.
    unsafe { command.pre_exec(begin) };
}

/// Registers a descriptor with the reactor for reading.
///
/// # Errors
/// Those of epoll_ctl(2).
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is valid and open for its lifetime, and `AsyncFd` gives no mutable
    // access.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
