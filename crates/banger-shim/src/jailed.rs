//! Starts a VMM through its jailer, which creates the jail, starts the VMM in its own process
//! namespace, writes its process id to a file and exits: Firecracker's docs/jailer.md.

use std::fs::File;
use std::io::{self, Read};

use banger_shim::{ExitCause, Jailed, Outcome};

use crate::child::{Adopted, ChildState};
use crate::event_loop::Event;
use crate::shim::{Shim, WriteEnds};
use crate::start::{Watch, about, describe};

/// Maximum length of a process id with its newline.
const MAX_PID: u64 = 16;

impl Shim {
    /// Starts the jailer, adopts the VMM, and waits for its socket.
    ///
    /// # Errors
    /// How the start failed: the jailer, its process id file, the socket, or SIGTERM meanwhile.
    pub fn start_jailed(&mut self, jailed: &Jailed, ends: &WriteEnds) -> Result<Watch, ExitCause> {
        let child = self.config.vmm.clone();
        let at = |error: io::Error| about("jail", &child, error);
        let watch = Watch::of_socket(&jailed.ready_socket, jailed.ready_timeout_ms).map_err(at)?;
        self.start_vmm(ends, None)?;
        loop {
            match self.next(None, Some(watch.deadline)).map_err(at)? {
                Event::VmmEnded => break,
                Event::TimedOut => {
                    let limit = jailed.ready_timeout_ms;
                    return Err(about(
                        "jail",
                        &child,
                        format!("it was still running after {limit} ms"),
                    ));
                }
                Event::Terminate => return Err(ExitCause::Requested),
                Event::PoweredOff => return Err(ExitCause::PoweredOff),
                Event::CompanionEnded | Event::FolderChanged => {}
            }
        }
        let outcome = self.vmm.outcome();
        if outcome != Some(Outcome::Exited { code: 0 }) {
            let how = outcome.map(describe).unwrap_or_default();
            return Err(about("jail", &child, format!("it ended with {how}")));
        }
        let pid = read_pid(&jailed.pid_file).map_err(at)?;
        // A VMM that ended immediately may have been reaped already; its log shows why.
        self.vmm = ChildState::Adopted(Adopted::find(pid).map_err(at)?);
        self.wait_socket(&watch, &jailed.ready_socket, "vmm", &child)?;
        Ok(watch)
    }
}

fn read_pid(name: &str) -> io::Result<u32> {
    let mut text = String::new();
    File::open(name)?.take(MAX_PID).read_to_string(&mut text)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("`{name}` contains no process id")))
}
