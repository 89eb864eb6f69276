//! Signals received by waiting, never by handlers; and signals sent by number.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use rustix::process::Pid;

/// A blocked set of signals that can be waited for.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Blocks `signals` in this thread and in all it starts from now on.
    ///
    /// # Errors
    /// As sigaddset(3), sigprocmask(2): a number that is no signal.
    #[expect(unsafe_code, reason = "signal masks have no safe wrapper")]
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the whole set it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in signals {
            // SAFETY: the set is initialised; a bad number is answered with an error.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: reads the initialised set; the old mask is not asked for.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        if result == 0 { Ok(Self(set)) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Waits for one of the signals and returns its number.
    pub fn wait(&self) -> i32 {
        loop {
            if let Some(signal) = self.wait_timeout(Duration::from_secs(3600)) {
                return signal;
            }
        }
    }

    /// Waits for one of the signals for at most `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<i32> {
        self.wait_value(timeout).map(|(signal, _)| signal)
    }

    /// The same, with the value of a signal that [`send_value`] sent, otherwise 0.
    #[expect(unsafe_code, reason = "sigtimedwait has no safe wrapper")]
    pub fn wait_value(&self, timeout: Duration) -> Option<(i32, i32)> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as _,
        };
        // SAFETY: all fields of the structure may be zero.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: set, details and timeout are initialised and outlive the call.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, &raw mut info, &raw const timeout) };
        let value = match info.si_code {
            // SAFETY: a signal of sigqueue(3) has a value.
            libc::SI_QUEUE => unsafe { info.si_value() }.sival_ptr as usize as i32,
            _ => 0,
        };
        (signal > 0).then_some((signal, value))
    }
}

/// Lets all signals through in this thread: what a program that is about to be executed expects.
/// Makes system calls only, so it may stand between fork and exec.
#[expect(unsafe_code, reason = "signal masks have no safe wrapper")]
pub fn clear_mask() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set, which is then only read; the old mask is not asked
    // for. Neither call can fail with these arguments.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Gives SIGPIPE its default effect back, which Rust programs ignore. One system call, so it may
/// stand between fork and exec.
#[expect(unsafe_code, reason = "signal dispositions have no safe wrapper")]
pub fn default_pipe() {
    // SAFETY: no handler is installed, only the default restored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The `n`th real-time signal as C programs count them (`SIGRTMIN+n`): systemd's and our init's
/// requests are among them.
pub fn realtime(n: i32) -> i32 {
    libc::SIGRTMIN() + n
}

/// Whom to signal.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// One process.
    Process(Pid),
    /// A process group, by its leader.
    Group(Pid),
    /// Everything but the caller and init.
    Everyone,
}

/// Sends signal `number`, which may be a real-time signal (rustix knows only the named ones).
///
/// # Errors
/// As kill(2): `ESRCH`, `EINVAL`.
#[expect(unsafe_code, reason = "rustix sends named signals only")]
pub fn send(target: Target, number: i32) -> io::Result<()> {
    let pid = match target {
        Target::Process(pid) => pid.as_raw_pid(),
        Target::Group(pid) => -pid.as_raw_pid(),
        Target::Everyone => -1,
    };
    // SAFETY: kill takes two numbers and touches no memory.
    if unsafe { libc::kill(pid, number) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends signal `number` with a value to a process (sigqueue(3)).
///
/// # Errors
/// As sigqueue(3): `ESRCH`, `EAGAIN`.
#[expect(unsafe_code, reason = "rustix has no signals with values")]
pub fn send_value(process: Pid, number: i32, value: i32) -> io::Result<()> {
    let value = libc::sigval { sival_ptr: value as u32 as usize as *mut libc::c_void };
    // SAFETY: sigqueue takes numbers only; the value is no address for the kernel.
    if unsafe { libc::sigqueue(process.as_raw_pid(), number, value) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether a mask of `/proc/PID/status` (proc(5)), such as `SigBlk:`, has a signal: it is
/// hexadecimal, signal 1 in the lowest bit.
pub fn is_in_mask(status: &str, mask: &str, number: i32) -> bool {
    let bit = u32::try_from(number - 1).ok().and_then(|place| 1u64.checked_shl(place));
    let mask = status.lines().find_map(|line| line.strip_prefix(mask));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
}
