//! Connections to guest agents that are open before a session asks for one.
//!
//! The handshake of a connection takes a round trip to the guest, and a thread there. After a
//! session has ended the next one on the same VM is likely, so one connection is made ready then,
//! beside the client's own end.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use banger_api::VmId;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// The agent closes a connection without a request after 60 s; a younger one is used.
const AGE_MAX: Duration = Duration::from_secs(40);
/// Maximum number of connections: each is a descriptor here, and a thread in a guest.
const MAX: usize = 64;

struct Spare {
    agent: OwnedFd,
    since: Instant,
}

impl Spare {
    fn is_young(&self) -> bool {
        self.since.elapsed() < AGE_MAX
    }

    /// Whether neither the guest nor its VMM has closed the connection (recv(2)). An agent sends
    /// nothing before a request.
    fn is_open(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.agent, [0; 1].as_mut_slice(), flags), Err(Errno::AGAIN))
    }
}

/// At most one connection for each VM.
#[derive(Default)]
pub struct Spares(Mutex<HashMap<VmId, Spare>>);

impl Spares {
    fn all(&self) -> MutexGuard<'_, HashMap<VmId, Spare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection to this VM's agent, if there is one that is still open.
    pub fn take(&self, vm: &VmId) -> Option<OwnedFd> {
        let spare = self.all().remove(vm)?;
        (spare.is_young() && spare.is_open()).then_some(spare.agent)
    }

    /// Whether a connection to this VM's agent would be kept.
    pub fn wants(&self, vm: &VmId) -> bool {
        let mut all = self.all();
        all.retain(|_, spare| spare.is_young() && spare.is_open());
        all.len() < MAX && !all.contains_key(vm)
    }

    /// Keeps a connection for the next session.
    pub fn put(&self, vm: &VmId, agent: OwnedFd) {
        self.all().insert(vm.clone(), Spare { agent, since: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (OwnedFd, UnixStream) {
        let (ours, guest) = UnixStream::pair().unwrap();
        (ours.into(), guest)
    }

    #[test]
    fn a_connection_is_used_once() {
        let (spares, vm) = (Spares::default(), VmId::from_entropy(1));
        let (ours, _guest) = pair();
        assert!(spares.wants(&vm));
        spares.put(&vm, ours);
        assert!(!spares.wants(&vm));
        assert!(spares.take(&VmId::from_entropy(2)).is_none());
        assert!(spares.take(&vm).is_some());
        assert!(spares.take(&vm).is_none());
    }

    #[test]
    fn a_connection_that_the_guest_closed_or_wrote_to_is_not_used() {
        let (spares, vm) = (Spares::default(), VmId::from_entropy(1));
        let (ours, guest) = pair();
        spares.put(&vm, ours);
        drop(guest);
        assert!(spares.wants(&vm));
        assert!(spares.take(&vm).is_none());
        let (ours, mut guest) = pair();
        guest.write_all(b"unasked").unwrap();
        spares.put(&vm, ours);
        assert!(spares.take(&vm).is_none());
    }

    #[test]
    fn their_number_is_limited() {
        let spares = Spares::default();
        let mut guests = Vec::new();
        for number in 0..MAX as u64 {
            let (ours, guest) = pair();
            spares.put(&VmId::from_entropy(number), ours);
            guests.push(guest);
        }
        assert!(!spares.wants(&VmId::from_entropy(1000)));
        guests.pop();
        assert!(spares.wants(&VmId::from_entropy(1000)));
    }
}
