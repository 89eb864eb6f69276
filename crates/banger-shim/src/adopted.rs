//! Descendants that lost their parent and became children of the shim, their subreaper.
//!
//! Neither program that the shim starts is known to leave any. One that was taken over by its guest
//! might, to stay behind when the VM is gone.

use std::time::{Duration, Instant};

use banger_sys::proc::wait;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

/// How long the end of all of them may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The shim's children but for its `own`: proc(5), `/proc/PID/task/TID/children`. None where the
/// kernel was built without that file.
fn strangers(own: &[u32]) -> Vec<Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|pid| pid.parse::<u32>().ok())
        .filter(|pid| !own.contains(pid))
        .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

fn reap_one(pid: Pid) {
    // Nothing is lost if it runs still: it is tried again at the next SIGCHLD.
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
}

/// Reaps those that have ended.
pub fn reap(own: &[u32]) {
    for pid in strangers(own) {
        reap_one(pid);
    }
}

/// Ends all of them, when the shim's own children are gone.
pub fn end_all() {
    let deadline = Instant::now() + LIMIT;
    loop {
        let strangers = strangers(&[]);
        if strangers.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            eprintln!("banger-shim: processes are left that do not end: {strangers:?}");
            return;
        }
        for pid in strangers {
            // Not reaped by anybody but us, so the id cannot have become another's.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = wait(&pidfd, deadline.saturating_duration_since(Instant::now()));
            }
            reap_one(pid);
        }
    }
}
