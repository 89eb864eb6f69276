//! systemd sends a notification when it has booted; `systemctl` then lists failed units.

use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use banger_agent_proto::boot::BootState;
use rustix::process::Pid;

use super::{LOOK, NotifySocket, Outcome};
use crate::agent::lookup::DEFAULT_PATH;

/// How long the notification is waited for before systemd is asked as well: versions before 217
/// send none.
const NOTIFICATION: Duration = Duration::from_secs(30);

/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Where images keep `systemctl` beside the usual places.
const MORE_PATH: &str = "/run/current-system/sw/bin:/run/current-system/profile/bin";

pub fn wait(socket: Option<NotifySocket>, ask_at_once: bool) -> Outcome {
    let patience = if ask_at_once { Duration::ZERO } else { NOTIFICATION };
    let mut ask_at = Instant::now() + patience;
    let ready = socket.and_then(|socket| socket.listen(Pid::INIT).ok());
    loop {
        let is_ready = match ready.as_ref().map(|ready| ready.recv_timeout(ASK_EVERY)) {
            Some(Ok(())) => true,
            Some(Err(RecvTimeoutError::Timeout)) => false,
            Some(Err(RecvTimeoutError::Disconnected)) | None => {
                std::thread::sleep(LOOK);
                false
            }
        };
        if is_ready {
            // The manager sends the message shortly before its state changes.
            return outcome(&ask(&["is-system-running"]));
        }
        if Instant::now() >= ask_at {
            ask_at = Instant::now() + ASK_EVERY;
            let state = ask(&["is-system-running"]);
            if !["", "initializing", "starting", "offline", "unknown"].contains(&state.as_str()) {
                return outcome(&state);
            }
        }
    }
}

fn outcome(state: &str) -> Outcome {
    let failed = failed_units(&ask(&[
        "list-units",
        "--state=failed",
        "--plain",
        "--no-legend",
        "--no-pager",
        "--full",
    ]));
    let word = if state.is_empty() { "ready" } else { state };
    let mut outcome = Outcome::booted(format!("systemd: {word}"), failed);
    // `maintenance`: the rescue or emergency target.
    if ["degraded", "maintenance"].contains(&state) {
        outcome.state = BootState::Degraded;
    }
    outcome
}

/// The first word of each line.
fn failed_units(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// What `systemctl` prints; empty where it cannot be run.
fn ask(arguments: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    command
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{DEFAULT_PATH}:{MORE_PATH}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_failed_are_listed_by_name() {
        let list = "a.service loaded failed failed A\n  b.mount not-found failed failed B\n";
        assert_eq!(failed_units(list), ["a.service", "b.mount"]);
        assert!(failed_units("").is_empty());
    }
}
