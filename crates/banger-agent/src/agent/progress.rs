//! Boot progress of the image's init, from the init's own report where it sends one.
//!
//! | init | booted when | how it is noticed |
//! | --- | --- | --- |
//! | systemd | its start transaction is finished | `READY=1` on the notify socket |
//! | OpenRC | a runlevel of its own is reached and nothing is starting | inotify on /run/openrc |
//! | runit | runsvdir runs and its services do | processes, then each service's `supervise/stat` |
//! | System V, busybox | the scripts of inittab(5) that init waits for have ended | processes |
//! | none: the agent | at once | |
//! | another | unknown; reported once it starts no more processes | processes made |
//!
//! Services that failed make a boot degraded, not unfinished.

mod inittab;
mod openrc;
mod other;
mod processes;
mod runit;
mod systemd;

use std::thread;
use std::time::Duration;

use banger_agent_proto::boot::{BootProgress, BootState};

use super::notify::NotifySocket;
use crate::boot::uptime_ms;

/// Pause between two polls of processes, which report no events.
const LOOK: Duration = Duration::from_millis(100);

/// Most names of failed services that are reported.
const FAILED_MAX: usize = 20;

/// Longest name of one, in characters.
const NAME_MAX: usize = 100;

/// The image's init, by the way its progress is detected.
#[derive(Debug)]
pub enum Init {
    /// systemd, with the socket that it reports on where there is one.
    Systemd(Option<NotifySocket>),
    /// OpenRC, whatever program is process 1.
    OpenRc,
    /// runit.
    Runit,
    /// System V init or busybox, which read inittab(5).
    Inittab,
    /// The agent itself.
    Agent,
    /// Another init.
    Other,
}

/// How a boot ended.
struct Outcome {
    state: BootState,
    source: String,
    failed: Vec<String>,
}

impl Outcome {
    /// Booted; degraded if services failed.
    fn booted(source: impl Into<String>, failed: Vec<String>) -> Self {
        let state = if failed.is_empty() { BootState::Running } else { BootState::Degraded };
        Self { state, source: source.into(), failed }
    }
}

/// Waits until the guest has booted, possibly for ever, and reports the outcome. After a restart of
/// the agent the previous agent may have received systemd's notification.
pub fn watch(init: Init, restarts: u32, report: impl FnOnce(BootProgress) + Send + 'static) {
    let work = move || {
        let outcome = match init {
            Init::Systemd(socket) => systemd::wait(socket, restarts > 0),
            Init::OpenRc => openrc::wait(),
            Init::Runit => runit::wait(),
            Init::Inittab => inittab::wait(),
            Init::Agent => Outcome::booted("the image has no init", Vec::new()),
            Init::Other => other::wait(),
        };
        let mut failed = outcome.failed;
        failed.truncate(FAILED_MAX);
        let short = |name: String| name.chars().take(NAME_MAX).collect();
        report(BootProgress {
            state: outcome.state,
            uptime_ms: Some(uptime_ms()),
            source: outcome.source,
            failed: failed.into_iter().map(short).collect(),
        });
    };
    if let Err(error) = thread::Builder::new().name("boot-progress".into()).spawn(work) {
        eprintln!("banger: cannot watch the boot: {error}");
    }
}
