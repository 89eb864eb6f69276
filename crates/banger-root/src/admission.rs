//! Admission of connections and requests: each user has connection slots of its own, and one
//! request at a time changes a VM.
//!
//! A user whose connections are slow fills its own slots and its own queue, and no other user's.
//!
//! A daemon that was killed leaves requests behind, some in progress, some not begun. The requests
//! of the next daemon wait for those in progress, and the others are not begun.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use banger_base::VmId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// VMs with a request in progress.
#[derive(Debug, Clone, Default)]
pub struct VmLocks(Arc<(Mutex<BTreeSet<VmId>>, Condvar)>);

/// The exclusive right to change one VM, released when dropped.
#[derive(Debug)]
pub struct VmGuard(VmLocks, VmId);

impl VmLocks {
    fn held(&self) -> MutexGuard<'_, BTreeSet<VmId>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other request changes this VM.
    pub fn take(&self, vm: &VmId) -> VmGuard {
        let waited = self.0.1.wait_while(self.held(), |held| held.contains(vm));
        waited.unwrap_or_else(PoisonError::into_inner).insert(vm.clone());
        VmGuard(self.clone(), vm.clone())
    }
}

impl Drop for VmGuard {
    fn drop(&mut self) {
        self.0.held().remove(&self.1);
        self.0.0.1.notify_all();
    }
}

/// Limits for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are served at the same time.
    pub served: usize,
    /// Accepted connections that wait for one of those to end.
    pub waiting: usize,
}

#[derive(Debug, Default)]
struct User {
    served: usize,
    waiting: VecDeque<UnixStream>,
}

/// The connections of all users.
#[derive(Debug, Clone)]
pub struct Slots {
    users: Arc<Mutex<BTreeMap<u32, User>>>,
    limits: Limits,
}

/// Result of [`Slots::admit`].
#[derive(Debug)]
pub enum Admitted {
    /// The caller serves it.
    Serve(Slot, UnixStream),
    /// It is served when a slot of its user is free.
    Waits,
    /// Too many connections of its user wait already.
    Refused(UnixStream),
}

/// A connection slot of a user. [`Self::next`] passes it on to a connection that waits; dropping
/// it, also in a panic, frees it.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    uid: u32,
}

impl Slots {
    /// A table without connections.
    pub fn new(limits: Limits) -> Self {
        Self { users: Arc::default(), limits }
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<u32, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection of a user; never waits.
    pub fn admit(&self, uid: u32, stream: UnixStream) -> Admitted {
        let mut users = self.users();
        let user = users.entry(uid).or_default();
        if user.served < self.limits.served {
            user.served += 1;
            return Admitted::Serve(Slot { slots: self.clone(), uid }, stream);
        }
        if user.waiting.len() >= self.limits.waiting {
            return Admitted::Refused(stream);
        }
        user.waiting.push_back(stream);
        Admitted::Waits
    }
}

impl Slot {
    /// The user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The next connection to serve in this slot, or the end of the slot.
    pub fn next(self) -> Option<(Self, UnixStream)> {
        let stream = self.slots.users().get_mut(&self.uid)?.waiting.pop_front()?;
        Some((self, stream))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut users = self.slots.users();
        let Entry::Occupied(mut user) = users.entry(self.uid) else { return };
        user.get_mut().served -= 1;
        if user.get().served == 0 {
            // Nothing would serve the waiting connections; their clients retry.
            user.remove();
        }
    }
}

/// Whether the peer has closed the connection in both directions.
pub fn hung_up(stream: impl AsFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn requests_of_a_vm_are_serialised() {
        let locks = VmLocks::default();
        let (one, other): (VmId, VmId) =
            ("0123456789ab".parse().unwrap(), "0123456789ac".parse().unwrap());
        let _other = locks.take(&other);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _guard = locks.take(&one);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    fn stream() -> UnixStream {
        UnixStream::pair().unwrap().0
    }

    fn served(admitted: Admitted) -> Slot {
        match admitted {
            Admitted::Serve(slot, _) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_user_does_not_take_the_slots_of_another() {
        let slots = Slots::new(Limits { served: 2, waiting: 1 });
        let first = served(slots.admit(1000, stream()));
        let _second = served(slots.admit(1000, stream()));
        assert!(matches!(slots.admit(1000, stream()), Admitted::Waits));
        assert!(matches!(slots.admit(1000, stream()), Admitted::Refused(_)));
        let _other = served(slots.admit(1001, stream()));
        // The waiting connection gets the slot; afterwards the slot is free.
        let (first, _stream) = first.next().unwrap();
        assert!(matches!(slots.admit(1000, stream()), Admitted::Waits));
        let (first, _stream) = first.next().unwrap();
        assert!(first.next().is_none());
        let _third = served(slots.admit(1000, stream()));
    }

    #[test]
    fn a_panic_frees_the_slot_and_the_last_slot_frees_the_queue() {
        let slots = Slots::new(Limits { served: 1, waiting: 1 });
        let slot = served(slots.admit(1000, stream()));
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(matches!(slots.admit(1000, ours), Admitted::Waits));
        let panics = std::thread::spawn(move || {
            let _slot = slot;
            panic!("meant");
        });
        assert!(panics.join().is_err());
        assert!(hung_up(&theirs), "the waiting connection is closed");
        let _again = served(slots.admit(1000, stream()));
    }

    #[test]
    fn a_peer_that_only_stops_writing_has_not_hung_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!hung_up(&ours));
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(!hung_up(&ours));
        drop(theirs);
        assert!(hung_up(&ours));
    }
}
