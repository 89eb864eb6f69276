//! The agent's parent: starts the agent again when it ends before the guest does.
//!
//! ```text
//! init ─ supervisor ─ agent ─ commands
//! ```
//!
//! The supervisor holds what the agent needs (the listening socket, the boot's context) and has one
//! thread, so each agent is a fork of it. Connections that come while no agent runs wait in the
//! socket's backlog. Sessions of an agent that died lose their client; their commands see a closed
//! terminal or broken pipes.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use super::{Context, power};
use crate::sys::process::{Forked, fork};
use crate::sys::signal::{self, SignalSet, Target};

/// An agent that lives shorter than this is started again only after this time.
const MIN_LIFE: Duration = Duration::from_secs(1);

/// How one agent came to its end.
enum Ended {
    /// With the guest.
    WithGuest,
    /// Before it; why, for the console.
    Early(String),
}

/// Runs agents until the guest ends.
pub fn run(listener: OwnedFd, mut context: Context) -> ! {
    super::set_up_process(c"banger-superv");
    // Without signals the supervisor still runs agents, but would be killed by SIGTERM.
    let signals = SignalSet::block(&[libc::SIGTERM, libc::SIGCHLD]);
    loop {
        let began = Instant::now();
        let ended = match fork() {
            Ok(Forked::Child) => {
                signal::clear_mask();
                super::run(listener, context)
            }
            Ok(Forked::Parent(agent)) => match &signals {
                Ok(signals) => wait(agent, signals),
                Err(_) => describe(waitpid(Some(agent), WaitOptions::empty())),
            },
            Err(error) => Ended::Early(format!("it cannot be started: {error}")),
        };
        match ended {
            Ended::WithGuest => std::process::exit(0),
            Ended::Early(reason) => {
                eprintln!("banger: the agent ended ({reason}) and is started again");
                context.restarts += 1;
                std::thread::sleep(MIN_LIFE.saturating_sub(began.elapsed()));
            }
        }
    }
}

/// Waits for the agent's end. SIGTERM is passed on where the guest really ends; the agent then
/// tells the host and exits.
fn wait(agent: Pid, signals: &SignalSet) -> Ended {
    loop {
        match signals.wait() {
            libc::SIGTERM if power::is_ending(None) => {
                // It may have been told already, or have ended.
                let _ = signal::send(Target::Process(agent), libc::SIGTERM);
            }
            libc::SIGTERM => {}
            _ => match waitpid(Some(agent), WaitOptions::NOHANG) {
                Ok(None) => {}
                ended => return describe(ended),
            },
        }
    }
}

fn describe(ended: rustix::io::Result<Option<(Pid, WaitStatus)>>) -> Ended {
    match ended {
        Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => Ended::WithGuest,
            (Some(code), _) => Ended::Early(format!("exit code {code}")),
            (None, Some(signal)) => Ended::Early(format!("signal {signal}")),
            (None, None) => Ended::Early("no reason known".to_owned()),
        },
        Ok(None) => Ended::Early("no reason known".to_owned()),
        Err(errno) => Ended::Early(format!("it cannot be waited for: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::zombie_processes, reason = "waited for by its id, as agents are")]
    fn ended(script: &str) -> Ended {
        let child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        describe(waitpid(Some(Pid::from_child(&child)), WaitOptions::empty()))
    }

    #[test]
    fn only_a_clean_exit_ends_the_supervisor() {
        assert!(matches!(ended("exit 0"), Ended::WithGuest));
        assert!(matches!(ended("exit 3"), Ended::Early(why) if why == "exit code 3"));
        assert!(matches!(ended("kill -9 $$"), Ended::Early(why) if why == "signal 9"));
    }
}
