//! Waiting for a descriptor until a deadline: poll(2).

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until the descriptor has one of these events, or an error, or a hang-up.
///
/// # Errors
/// `TimedOut` at the deadline; poll(2).
pub fn wait_until(fd: impl AsFd, events: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), events)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn data_hang_up_or_the_deadline_ends_the_wait() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let passed = wait_until(&ours, PollFlags::IN, Instant::now());
        assert_eq!(passed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let later = || Instant::now() + std::time::Duration::from_secs(60);
        theirs.write_all(b"x").unwrap();
        wait_until(&ours, PollFlags::IN, later()).unwrap();
        drop(theirs);
        wait_until(&ours, PollFlags::empty(), later()).unwrap();
    }
}
