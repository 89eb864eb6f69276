//! The agent: answers the host over vsock until the guest ends.
//!
//! One thread per connection, a bounded number of them, blocking sockets. Only the host (CID 2)
//! is served: other programs of the guest can reach the same port through the loopback transport.

mod archive;
pub mod cgroup;
mod clock;
mod connect;
mod detached;
mod environment;
pub mod events;
pub mod exec;
mod forward;
mod http;
mod live;
pub mod lookup;
pub mod notify;
mod ports;
pub mod power;
pub mod program;
pub mod progress;
mod routes;
mod session;
mod sshd;
pub mod supervisor;
mod terminfo;
mod usage;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use banger_agent_proto::HOST_CID;
use banger_agent_proto::boot::Program;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};

use crate::beneath::Folder;
use crate::sys::signal::SignalSet;
use crate::sys::vsock;
use events::Events;

/// Most connections served at once; more are closed at once.
const MAX_CONNECTIONS: usize = 256;

/// Stack of a connection's thread, in bytes: no deep recursion happens on it.
const STACK: usize = 256 * 1024;

/// Descriptors for the agent itself: a session needs five.
const OPEN_FILES: u64 = 65_536;

/// Most descriptors a command may ask for; systemd gives the same to its services.
const OPEN_FILES_OF_COMMANDS: u64 = 524_288;

/// How long the agent waits for its last event to be written when the guest ends.
const ENDING_LINGER: Duration = Duration::from_millis(500);

/// Results of the boot that the agent needs.
pub struct Context {
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// Root folder of the ext4 that takes the guest's writes.
    pub private: Folder,
    /// Control groups; none where the kernel or the mount is missing.
    pub groups: Option<cgroup::Groups>,
    /// How many agents ended before the guest did.
    pub restarts: u32,
    /// The image's init, whose boot progress is reported.
    pub init: progress::Init,
    /// The program of the machine, if it has one instead of an init.
    pub program: Option<Program>,
}

/// State shared by all connections.
pub struct Agent {
    private: Folder,
    restarts: u32,
    commands: exec::Defaults,
    boot_id: String,
    clock: clock::WallClock,
    events: Events,
    detached: detached::Commands,
    forwards: forward::Forwards,
    power: Sender<power::Request>,
    workload: Option<program::Workload>,
}

/// Serves until the guest ends, announced by SIGTERM.
pub fn run(listener: OwnedFd, context: Context) -> ! {
    set_up_process(c"banger-agent");
    // Before any thread: all of them must leave SIGTERM to this one.
    let terminate = SignalSet::block(&[libc::SIGTERM]);
    let (power, requests) = mpsc::channel();
    let Context { env, private, groups, restarts, init, program } = context;
    let agent = Arc::new(Agent {
        private,
        restarts,
        commands: exec::Defaults { env, groups: cgroup::Sessions::new(groups) },
        boot_id: crate::boot::boot_id(),
        clock: clock::WallClock::new(),
        events: Events::default(),
        detached: detached::Commands::default(),
        forwards: forward::Forwards::default(),
        power,
        workload: program.map(|program| program::Workload::new(program, restarts)),
    });
    let (serving, watching) = (Arc::clone(&agent), Arc::clone(&agent));
    let reporting = Arc::clone(&agent);
    progress::watch(init, restarts, move |progress| reporting.events.booted(progress));
    // Without it the host still corrects the clock.
    let _ = thread::Builder::new().stack_size(STACK).spawn(move || watching.clock.watch());
    let started = thread::Builder::new()
        .spawn(move || power::serve(&requests))
        .and_then(|_| thread::Builder::new().spawn(move || accept_all(&listener, &serving)));
    match (started, terminate) {
        (Ok(_), Ok(terminate)) => loop {
            terminate.wait();
            let requested = agent.events.requested();
            if !power::is_ending(requested) {
                continue;
            }
            agent.events.end(power::shutdown_mode(requested), ENDING_LINGER);
            if !power::is_forcing() {
                std::process::exit(0)
            }
        },
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("banger: the agent cannot serve: {error}");
            std::process::exit(1)
        }
    }
}

/// Sets the process up as a daemon that lives as long as the guest. The agent serves even if a part
/// of it fails.
fn set_up_process(name: &CStr) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(name);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let limit = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES_OF_COMMANDS) };
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
}

fn accept_all(listener: &OwnedFd, agent: &Arc<Agent>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, peer) = match vsock::accept(listener) {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: others must end before it can work again.
                eprintln!("banger: cannot accept a connection: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if peer.is_none_or(|peer| peer.cid != HOST_CID) {
            continue;
        }
        let slot = Slot::take(&open, MAX_CONNECTIONS);
        let agent = Arc::clone(agent);
        if let Some(slot) = slot {
            let serve = move || {
                routes::serve(stream, &agent);
                drop(slot);
            };
            // Without a thread the stream is dropped, and the host sees a closed connection.
            let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
        }
    }
}

/// One of a bounded number, given back when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let taken = open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < max).then_some(open + 1)
        });
        taken.ok().map(|_| Self(Arc::clone(open)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_come_back() {
        let open = Arc::new(AtomicUsize::new(0));
        let mut slots: Vec<_> = std::iter::from_fn(|| Slot::take(&open, 5)).collect();
        assert_eq!(slots.len(), 5);
        slots.pop();
        assert!(Slot::take(&open, 5).is_some());
    }
}
