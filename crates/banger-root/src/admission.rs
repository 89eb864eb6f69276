//! Admission of requests: one request at a time changes a VM, and the number of connections
//! served at the same time is bounded.
//!
//! A daemon that was killed leaves requests behind, some under way, some not begun. The next
//! daemon's wait for those under way, and the others are not begun any more.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use banger_base::VmId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[derive(Debug, Default)]
struct State {
    vms: BTreeSet<VmId>,
    connections: usize,
}

/// The VMs being changed and the connections being served.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<(Mutex<State>, Condvar)>);

/// The exclusive right to change one VM; dropping it releases the right.
#[derive(Debug)]
pub struct VmGuard(Admission, VmId);

/// One of the bounded connection slots; dropping it, also in a panic, frees the slot.
#[derive(Debug)]
pub struct ConnectionSlot(Admission);

impl Admission {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, free: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.0.1.wait_while(self.state(), |state| !free(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    /// Waits until nobody else changes this VM.
    pub fn take(&self, vm: &VmId) -> VmGuard {
        self.wait_until(|state| !state.vms.contains(vm)).vms.insert(vm.clone());
        VmGuard(self.clone(), vm.clone())
    }

    /// Waits until fewer than so many connections are open.
    pub fn slot(&self, most: usize) -> ConnectionSlot {
        self.wait_until(|state| state.connections < most).connections += 1;
        ConnectionSlot(self.clone())
    }
}

impl Drop for VmGuard {
    fn drop(&mut self) {
        self.0.over(|state| {
            state.vms.remove(&self.1);
        });
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.over(|state| state.connections -= 1);
    }
}

/// Whether the other end of a connection is gone as a whole, not only done with writing.
pub fn hung_up(stream: impl AsFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_at_a_time_for_each_vm() {
        let admission = Admission::default();
        let (one, other): (VmId, VmId) =
            ("0123456789ab".parse().unwrap(), "0123456789ac".parse().unwrap());
        let _other = admission.take(&other);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = admission.take(&one);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_slot_is_waited_for_and_given_back_by_a_panic() {
        let admission = Admission::default();
        let _first = admission.slot(2);
        let second = admission.slot(2);
        std::thread::scope(|scope| {
            let third = scope.spawn(|| drop(admission.slot(2)));
            let panics = scope.spawn(move || {
                let _second = second;
                panic!("meant");
            });
            assert!(panics.join().is_err());
            third.join().unwrap();
        });
    }

    #[test]
    fn who_only_stops_writing_is_not_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!hung_up(&ours));
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(!hung_up(&ours));
        drop(theirs);
        assert!(hung_up(&ours));
    }
}
