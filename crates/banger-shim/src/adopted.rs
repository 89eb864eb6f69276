//! Orphaned descendants, which became children of the shim because it is their subreaper.
//!
//! Neither program that the shim starts is known to leave orphans. A compromised one might, to
//! survive the end of the VM.

use std::time::{Duration, Instant};

use banger_sys::proc::wait;
use banger_sys::stdio::error_line;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

/// Time limit for all of them to end.
const LIMIT: Duration = Duration::from_secs(2);

/// The shim's children except `own`: proc(5), `/proc/PID/task/TID/children`. Empty if the kernel
/// was built without that file.
fn orphans(own: &[u32]) -> Vec<Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|pid| pid.parse::<u32>().ok())
        .filter(|pid| !own.contains(pid))
        .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

fn reap_one(pid: Pid) {
    // If it is still running, the next SIGCHLD tries again.
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
}

/// Reaps the ended ones.
pub fn reap(own: &[u32]) {
    for pid in orphans(own) {
        reap_one(pid);
    }
}

/// Kills all of them, after the shim's own children have ended.
pub fn end_all() {
    let deadline = Instant::now() + LIMIT;
    loop {
        let orphans = orphans(&[]);
        if orphans.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            error_line(format_args!("banger-shim: these processes do not end: {orphans:?}"));
            return;
        }
        for pid in orphans {
            // Only the shim reaps it, so the id cannot have been reused.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = wait(&pidfd, deadline.saturating_duration_since(Instant::now()));
            }
            reap_one(pid);
        }
    }
}
