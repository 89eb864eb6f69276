//! Starts a VMM through its jailer, which makes the jail, leaves the VMM behind in a process
//! namespace of its own, writes down its process id and ends: Firecracker's docs/jailer.md.

use std::fs::File;
use std::io::{self, Read};

use banger_shim::{ExitCause, Jailed, Outcome};

use crate::event_loop::Event;
use crate::life::{Adopted, Life};
use crate::shim::{Ends, Shim};
use crate::start::{Watch, about, describe};

/// Longest process id with its newline.
const MAX_PID: u64 = 16;

impl Shim {
    /// Starts the jailer, takes over what it leaves behind, and waits for its socket.
    pub fn start_jailed(&mut self, jailed: &Jailed, ends: &Ends) -> Result<Watch, ExitCause> {
        let child = self.config.vmm.clone();
        let at = |error: io::Error| about("jail", &child, error);
        let watch = Watch::of_socket(&jailed.ready_socket, jailed.ready_timeout_ms).map_err(at)?;
        self.start_vmm(ends)?;
        loop {
            match self.next(None, Some(watch.deadline)).map_err(at)? {
                Event::VmmEnded => break,
                Event::TimedOut => {
                    let limit = jailed.ready_timeout_ms;
                    return Err(about("jail", &child, format!("it still ran after {limit} ms")));
                }
                Event::Asked => return Err(ExitCause::Asked),
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
        // A VMM that ended at once may have been reaped already: then its log tells why.
        self.vmm = Life::Adopted(Adopted::find(pid).map_err(at)?);
        self.wait_socket(&watch, &jailed.ready_socket, "vmm", &child)?;
        Ok(watch)
    }
}

fn read_pid(name: &str) -> io::Result<u32> {
    let mut text = String::new();
    File::open(name)?.take(MAX_PID).read_to_string(&mut text)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("`{name}` holds no process id")))
}
