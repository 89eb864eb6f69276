//! One at a time for each key: whoever comes second waits for the first and takes its result.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Progress, SupplyError};

/// How often a waiting caller looks whether it is still wanted: the trait has no event for that.
const LOOK: Duration = Duration::from_millis(100);

/// Work in progress, by key.
#[derive(Debug, Default)]
pub struct Flight {
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

/// What a caller is to do.
pub enum Turn<'a> {
    /// It does the work, and says how it ended; dropped without that, the next one tries.
    Mine(Mine<'a>),
    /// Somebody else has just done it, with this result.
    Done(String),
}

/// The right to do the work.
pub struct Mine<'a> {
    flight: &'a Flight,
    key: String,
    slot: Arc<Slot>,
}

impl Flight {
    /// Waits for its turn.
    ///
    /// # Errors
    /// [`SupplyError::Cancelled`] while waiting.
    pub fn turn(&self, key: &str, progress: &dyn Progress) -> Result<Turn<'_>, SupplyError> {
        loop {
            let slot = {
                let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(slot) = slots.get(key) {
                    slot.clone()
                } else {
                    let slot = Arc::new(Slot::default());
                    slots.insert(key.to_owned(), slot.clone());
                    return Ok(Turn::Mine(Mine { flight: self, key: key.to_owned(), slot }));
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
                return Ok(Turn::Done(result.clone()));
            }
            // The other one failed, or was cancelled by whoever asked for it: our own try.
        }
    }
}

impl Mine<'_> {
    /// The work succeeded with this result.
    pub fn done(self, result: &str) {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.result = Some(result.to_owned());
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        // The slot goes first, so that nobody who wakes up finds it again.
        self.flight.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.slot.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.slot.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::Silent;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn many_ask_one_works_all_have_the_result() {
        let (flight, worked) = (Flight::default(), AtomicUsize::new(0));
        let begun = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begun.wait();
                    match flight.turn("x", &Silent).unwrap() {
                        Turn::Mine(mine) => {
                            worked.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(200));
                            mine.done("id");
                        }
                        Turn::Done(result) => assert_eq!(result, "id"),
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
        let flight = Flight::default();
        let Turn::Mine(first) = flight.turn("x", &Silent).unwrap() else { panic!("not mine") };
        assert!(matches!(flight.turn("x", &Stop), Err(SupplyError::Cancelled)));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| matches!(flight.turn("x", &Silent), Ok(Turn::Mine(_))));
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
