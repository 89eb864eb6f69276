//! What `GET /events` waits for: the heartbeat and the end of the guest.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use banger_agent_proto::events::{GuestEvent, PowerMode};

/// Time between heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    /// What the host asked for.
    requested: Option<PowerMode>,
    /// Set once the guest goes down.
    ending: Option<PowerMode>,
    /// Streams that have not said goodbye.
    streams: usize,
}

/// Shared by the event streams and by whoever learns of the end.
#[derive(Default)]
pub struct Events {
    state: Mutex<State>,
    changed: Condvar,
}

impl Events {
    /// A poisoned lock only means that a stream's thread has died; the state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what the host asked for.
    pub fn request(&self, mode: PowerMode) {
        self.lock().requested = Some(mode);
    }

    /// What the host asked for last.
    pub fn requested(&self) -> Option<PowerMode> {
        self.lock().requested
    }

    /// Tells all streams that the guest ends, and waits until they have written it.
    pub fn end(&self, mode: PowerMode, linger: Duration) {
        let mut state = self.lock();
        state.ending = Some(mode);
        self.changed.notify_all();
        let told = self.changed.wait_timeout_while(state, linger, |state| state.streams > 0);
        drop(told);
    }

    /// Writes events until the guest ends or the client is gone.
    ///
    /// # Errors
    /// The client's.
    pub fn stream(&self, boot_id: &str, out: &mut impl Write) -> io::Result<()> {
        let _open = Open::new(self);
        write_event(out, &GuestEvent::Attached { boot_id: boot_id.to_owned() })?;
        loop {
            match self.wait(HEARTBEAT) {
                Some(mode) => return write_event(out, &GuestEvent::Ending { mode }),
                None => write_event(out, &GuestEvent::Heartbeat)?,
            }
        }
    }

    /// The end, or `None` after `timeout`.
    fn wait(&self, timeout: Duration) -> Option<PowerMode> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.ending.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state.ending
    }
}

/// Counts an open stream for as long as it lives.
struct Open<'a>(&'a Events);

impl<'a> Open<'a> {
    fn new(events: &'a Events) -> Self {
        events.lock().streams += 1;
        Self(events)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.lock().streams -= 1;
        self.0.changed.notify_all();
    }
}

/// One line, in one write: a chunk per event.
fn write_event(out: &mut impl Write, event: &GuestEvent) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn every_stream_hears_of_the_end() {
        let events = Arc::new(Events::default());
        let streams: Vec<_> = (0..3)
            .map(|_| {
                let events = Arc::clone(&events);
                thread::spawn(move || {
                    let mut out = Vec::new();
                    events.stream("boot", &mut out).unwrap();
                    String::from_utf8(out).unwrap()
                })
            })
            .collect();
        while events.lock().streams < 3 {
            thread::yield_now();
        }
        events.end(PowerMode::Reboot, Duration::from_secs(10));
        assert_eq!(events.lock().streams, 0, "end waits for the streams");
        for stream in streams {
            let lines = stream.join().unwrap();
            assert_eq!(
                lines,
                "{\"type\":\"attached\",\"boot_id\":\"boot\"}\n\
                 {\"type\":\"ending\",\"mode\":\"reboot\"}\n"
            );
        }
    }

    #[test]
    fn a_stream_that_hangs_does_not_hold_up_the_end() {
        let events = Events::default();
        let _stuck = Open::new(&events);
        // It returns while the stream is still open.
        events.end(PowerMode::Unknown, Duration::from_millis(20));
        assert_eq!(events.lock().streams, 1);
    }
}
