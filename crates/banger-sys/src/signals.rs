//! Signals read from a descriptor (signalfd(2)), ignored, or reset to their defaults.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// Size of `struct signalfd_siginfo`, whose first four bytes are the signal's number (signalfd(2)).
const RECORD: usize = 128;
/// One more than the highest signal number of Linux (signal(7)).
const END: i32 = 65;

/// Signals that are read instead of delivered: signalfd(2).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks the signals for the calling thread and the threads it will start, and opens a
    /// non-blocking descriptor to read them from. Call it while the process has one thread only.
    ///
    /// # Errors
    /// sigprocmask(2), signalfd(2).
    #[expect(unsafe_code, reason = "signal sets are C structures")]
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset(3) writes the whole set, sigaddset(3) only reads and writes it; the
        // set outlives every call, and the new descriptor has no other owner.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in signals {
                libc::sigaddset(&raw mut set, signal.as_raw());
            }
            let refused =
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if refused != 0 {
                return Err(io::Error::from_raw_os_error(refused));
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The number of the next pending signal; `None` if no signal is pending.
    ///
    /// # Errors
    /// read(2).
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut record = [0; RECORD];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut record)) {
            Ok(RECORD) => {
                let [a, b, c, d, ..] = record;
                Ok(i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok())
            }
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ignores signals: signal(2), SIG_IGN.
///
/// # Errors
/// A signal that cannot be ignored, such as SIGKILL.
#[expect(unsafe_code, reason = "signal(2) is a C function")]
pub fn ignore(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: installs no handler, so no signal runs code of this process.
        if unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets every signal to its default disposition (signal(2), SIG_DFL) and unblocks all
/// (sigprocmask(2)). For a child between fork(2) and exec; async-signal-safe. SIGKILL, SIGSTOP and
/// the two signals of the C library cannot be changed.
#[expect(unsafe_code, reason = "signal(2) is a C function")]
pub(crate) fn reset() {
    for number in 1..END {
        // SAFETY: installs no handler, so no signal runs code of this process.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) writes the whole set before it is read. Neither call can fail with
    // these arguments.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "raise(3) is a C function")]
    fn a_blocked_signal_is_read() {
        let signals = SignalFd::new(&[Signal::USR1]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // SAFETY: sends a signal to this thread, which has it blocked.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(signals.next().unwrap(), Some(Signal::USR1.as_raw()));
        assert_eq!(signals.next().unwrap(), None);
    }

    #[test]
    fn ignoring_sigkill_is_an_error() {
        ignore(&[Signal::HUP]).unwrap();
        assert!(ignore(&[Signal::KILL]).is_err());
    }
}
