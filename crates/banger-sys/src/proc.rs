//! Processes: references that survive reuse of process ids, signals, waiting.
//!
//! The kernel reuses process ids; an id together with the start time (field 22 of `/proc/PID/stat`,
//! proc(5)) identifies one process. A pidfd (pidfd_open(2)) whose start time was checked after
//! opening refers to that process for its whole life.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use banger_base::ProcRef;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Start time, in clock ticks after boot, of the process with this id; `None` if there is none.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// Fields are counted from the last parenthesis: the process name may contain spaces and
/// parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Parent of the process with this id; `None` if there is no such process.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// A reference to the process with this id; `None` if there is none.
pub fn reference(pid: u32) -> Option<ProcRef> {
    start_time(pid).map(|start_time| ProcRef { pid, start_time })
}

/// A pidfd of a process, readable once the process has ended; `None` if the process is gone.
///
/// # Errors
/// pidfd_open(2), except ESRCH.
pub fn open(process: ProcRef) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Checked after opening: if the times agree now, the pidfd refers to this process.
    Ok((start_time(process.pid) == Some(process.start_time)).then_some(pidfd))
}

/// Whether a process is running; false for a zombie.
pub fn is_alive(process: ProcRef) -> bool {
    match open(process) {
        Ok(Some(pidfd)) => matches!(wait(&pidfd, Duration::ZERO), Ok(Waited::Alive)),
        Ok(None) | Err(_) => false,
    }
}

/// Sends a signal; success if the process is gone.
///
/// # Errors
/// pidfd_send_signal(2), except ESRCH.
pub fn send_signal(process: ProcRef, signal: Signal) -> io::Result<()> {
    let Some(pidfd) = open(process)? else { return Ok(()) };
    match pidfd_send_signal(&pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The id of this boot of the host. If it changed, every earlier process is gone: random(4),
/// `/proc/sys/kernel/random/boot_id`.
///
/// # Errors
/// open(2), read(2).
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// Result of [`wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The process has ended.
    Ended,
    /// The process is still running at the timeout.
    Alive,
}

/// Waits until the process of a pidfd has ended.
///
/// # Errors
/// poll(2).
pub fn wait(pidfd: &OwnedFd, timeout: Duration) -> io::Result<Waited> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(Waited::Alive),
            Ok(_) => return Ok(Waited::Ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::{Command, Stdio};

    #[test]
    fn parent_is_the_process_that_spawned() {
        let ours = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        assert_eq!(parent(std::process::id()), ours);
        assert_eq!(parent(u32::MAX), None);
    }

    #[test]
    fn start_time_is_parsed_behind_a_name_with_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_start_time(stat), Some(987_654));
        assert_eq!(parse_start_time("7 (x"), None);
    }

    #[test]
    fn boot_id_is_stable() {
        let id = boot_id().unwrap();
        assert_eq!((id.len(), boot_id().unwrap()), (36, id));
    }

    #[test]
    fn a_process_is_alive_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = reference(child.id()).unwrap();
        assert!(is_alive(process));
        let other = ProcRef { start_time: process.start_time + 1, ..process };
        assert!(!is_alive(other), "the same pid with another start time is another process");
        send_signal(other, Signal::KILL).unwrap();
        assert!(is_alive(process), "a signal to another start time is not delivered");
        let pidfd = open(process).unwrap().unwrap();
        send_signal(process, Signal::KILL).unwrap();
        assert_eq!(wait(&pidfd, Duration::from_secs(10)).unwrap(), Waited::Ended);
        assert!(!is_alive(process), "ended, not yet reaped");
        child.wait().unwrap();
        assert_eq!(reference(process.pid), None);
    }
}
