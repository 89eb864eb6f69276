//! Single flight: concurrent callers with the same key share one execution and its result.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{FetchError, Progress};

/// Interval at which a waiting caller checks for cancellation: [`Progress`] has no event for it.
const LOOK: Duration = Duration::from_millis(100);

/// Operations in progress, by key.
#[derive(Debug, Default)]
pub struct SingleFlight {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    result: Option<String>,
}

/// The part of a caller in a flight.
pub enum Flight<'a> {
    /// The caller does the work and reports the result. If it is dropped before that, the next
    /// caller leads.
    Leader(Leader<'a>),
    /// Another caller has just completed the work, with this result.
    Done(String),
}

/// The right to do the work of one flight.
pub struct Leader<'a> {
    flight: &'a SingleFlight,
    key: String,
    slot: Arc<Slot>,
}

impl SingleFlight {
    /// Joins the flight of `key`: leads it, or waits for its leader and takes the result.
    ///
    /// # Errors
    /// [`FetchError::Cancelled`] while waiting.
    pub fn join(&self, key: &str, progress: &dyn Progress) -> Result<Flight<'_>, FetchError> {
        loop {
            let slot = {
                let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(slot) = slots.get(key) {
                    slot.clone()
                } else {
                    let slot = Arc::new(Slot::default());
                    slots.insert(key.to_owned(), slot.clone());
                    return Ok(Flight::Leader(Leader { flight: self, key: key.to_owned(), slot }));
                }
            };
            progress.stage("wait for the same work in progress");
            let mut state = slot.state.lock().unwrap_or_else(PoisonError::into_inner);
            while !state.over {
                progress.go_on()?;
                let waited = slot.changed.wait_timeout(state, LOOK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if let Some(result) = &state.result {
                return Ok(Flight::Done(result.clone()));
            }
            // The leader failed or was cancelled by its own user: try again.
        }
    }
}

impl Leader<'_> {
    /// Reports the result.
    pub fn done(self, result: &str) {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.result = Some(result.to_owned());
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        // Removes the entry first, so that no woken caller finds it again.
        self.flight.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.slot.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.slot.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::NoProgress;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn many_ask_one_works_all_have_the_result() {
        let (flight, worked) = (SingleFlight::default(), AtomicUsize::new(0));
        let begun = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begun.wait();
                    match flight.join("x", &NoProgress).unwrap() {
                        Flight::Leader(mine) => {
                            worked.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(200));
                            mine.done("id");
                        }
                        Flight::Done(result) => assert_eq!(result, "id"),
                    }
                });
            }
        });
        assert_eq!(worked.load(Ordering::SeqCst), 1);
        assert!(flight.slots.lock().unwrap().is_empty());
    }

    #[test]
    fn after_a_failure_the_next_one_tries_and_a_cancelled_one_leaves() {
        struct Stop;
        impl Progress for Stop {
            fn stage(&self, _: &str) {}
            fn bytes(&self, _: u64, _: Option<u64>) {}
            fn log(&self, _: &str) {}
            fn cancelled(&self) -> bool {
                true
            }
        }
        let flight = SingleFlight::default();
        let Flight::Leader(first) = flight.join("x", &NoProgress).unwrap() else {
            panic!("not mine")
        };
        assert!(matches!(flight.join("x", &Stop), Err(FetchError::Cancelled)));
        std::thread::scope(|scope| {
            let second =
                scope.spawn(|| matches!(flight.join("x", &NoProgress), Ok(Flight::Leader(_))));
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
