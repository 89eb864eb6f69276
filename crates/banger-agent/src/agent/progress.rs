//! How far the image's init has come, from its own word where it has one.
//!
//! | init | booted when | how it is noticed |
//! | --- | --- | --- |
//! | systemd | its start transaction is finished | `READY=1` on the notify socket |
//! | OpenRC | a runlevel of its own is reached and nothing is starting | inotify on /run/openrc |
//! | runit | runsvdir runs and its services do | processes, then each service's `supervise/stat` |
//! | System V, busybox | the scripts of inittab(5) that init waits for have ended | processes |
//! | none: the agent | at once | |
//! | another | cannot be known; told once it has come to rest | processes made |
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

/// Pause between two looks at what only a look can tell: processes of other programs.
const LOOK: Duration = Duration::from_millis(100);

/// Most names of failed services that are reported.
const FAILED_MAX: usize = 20;

/// Longest name of one, in characters.
const NAME_MAX: usize = 100;

/// The init of this machine, as far as it matters here.
#[derive(Debug)]
pub enum Init {
    /// systemd, with the socket that it reports on where there is one.
    Systemd(Option<NotifySocket>),
    /// OpenRC, whatever program is process 1.
    OpenRc,
    /// runit.
    Runit,
    /// System V init or busybox: whatever reads inittab(5).
    Inittab,
    /// The agent itself.
    Agent,
    /// Something else.
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

/// Waits until this machine has booted, which may be never, and passes the outcome on. After a
/// restart of the agent systemd's notification may have gone to the agent before.
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
