//! Waiting for the end of a process within a tokio runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Resolves when the process of this pidfd (pidfd_open(2)) has ended. Call within a runtime.
///
/// # Errors
/// epoll(7) rejects the descriptor.
#[expect(unsafe_code, reason = "tokio cannot know that this descriptor stays what it is")]
pub async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    // SAFETY: an `OwnedFd` is open, always returns the same number, and is neither closed nor
    // replaced before the `AsyncFd` that owns it is dropped at the end of this function.
    let registered = unsafe { AsyncFd::register(pidfd) }.map_err(io::Error::from)?;
    registered.readable().await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use crate::proc;

    #[test]
    fn resolves_when_the_process_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = proc::open(proc::reference(child.id()).unwrap()).unwrap().unwrap();
        drop(child.stdin.take());
        runtime.block_on(super::ended(pidfd)).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
