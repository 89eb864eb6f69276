//! Events of `GET /events`: heartbeats, the end of the boot, the end of the guest.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use banger_agent_proto::boot::BootProgress;
use banger_agent_proto::events::{GuestEvent, PowerMode};

/// Time between heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    /// Shutdown mode that the host requested.
    requested: Option<PowerMode>,
    /// Set once the guest shuts down.
    ending: Option<PowerMode>,
    /// How far the init has booted; none until something is known.
    boot: Option<BootProgress>,
    /// Number of open streams.
    streams: usize,
}

/// State shared by the event streams and the threads that report events.
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

    /// Records the shutdown mode that the host requests.
    pub fn request(&self, mode: PowerMode) {
        self.lock().requested = Some(mode);
    }

    /// The shutdown mode that the host requested last.
    pub fn requested(&self) -> Option<PowerMode> {
        self.lock().requested
    }

    /// Reports that the boot is over.
    pub fn booted(&self, progress: BootProgress) {
        self.lock().boot = Some(progress);
        self.changed.notify_all();
    }

    /// How far the init has booted.
    pub fn boot(&self) -> BootProgress {
        self.lock().boot.clone().unwrap_or_else(BootProgress::booting)
    }

    /// The same, once the boot is over or after `timeout`.
    pub fn wait_boot(&self, timeout: Duration) -> BootProgress {
        let waiting = |state: &mut State| state.boot.is_none() && state.ending.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, waiting);
        drop(waited);
        self.boot()
    }

    /// Sends the end of the guest to all streams and waits, at most `linger`, until they have
    /// written it.
    pub fn end(&self, mode: PowerMode, linger: Duration) {
        let mut state = self.lock();
        state.ending = Some(mode);
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, linger, |state| state.streams > 0);
        drop(waited);
    }

    /// Writes events until the guest ends or the client is gone.
    ///
    /// # Errors
    /// The client's.
    pub fn stream(&self, boot_id: &str, out: &mut impl Write) -> io::Result<()> {
        let _open = Open::new(self);
        write_event(out, &GuestEvent::Attached { boot_id: boot_id.to_owned() })?;
        let mut boot_sent = false;
        loop {
            match self.wait(HEARTBEAT, boot_sent) {
                NextEvent::Ending(mode) => return write_event(out, &GuestEvent::Ending { mode }),
                NextEvent::Booted(progress) => {
                    boot_sent = true;
                    write_event(out, &GuestEvent::Booted { progress })?;
                }
                NextEvent::Heartbeat => write_event(out, &GuestEvent::Heartbeat)?,
            }
        }
    }

    /// The end, the end of the boot if `boot_sent` is false, or nothing after `timeout`.
    fn wait(&self, timeout: Duration, boot_sent: bool) -> NextEvent {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(mode) = state.ending {
                return NextEvent::Ending(mode);
            }
            if let Some(progress) = state.boot.clone().filter(|_| !boot_sent) {
                return NextEvent::Booted(progress);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return NextEvent::Heartbeat;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// The next event of a stream.
enum NextEvent {
    Ending(PowerMode),
    Booted(BootProgress),
    /// Nothing happened within the heartbeat's time.
    Heartbeat,
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

    use banger_agent_proto::boot::BootState;

    use super::*;

    #[test]
    fn every_stream_receives_the_end() {
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
    fn the_end_of_the_boot_is_sent_once_and_remembered() {
        let events = Arc::new(Events::default());
        assert_eq!(events.wait_boot(Duration::from_millis(1)), BootProgress::booting());
        let waiting = {
            let events = Arc::clone(&events);
            thread::spawn(move || events.wait_boot(Duration::from_secs(60)))
        };
        let progress = BootProgress {
            state: BootState::Degraded,
            uptime_ms: Some(7),
            source: "systemd: degraded".into(),
            failed: vec!["a.service".into()],
        };
        events.booted(progress.clone());
        assert_eq!(waiting.join().unwrap(), progress);
        assert_eq!(events.boot(), progress);
        let stream = {
            let events = Arc::clone(&events);
            thread::spawn(move || {
                let mut out = Vec::new();
                events.stream("boot", &mut out).unwrap();
                String::from_utf8(out).unwrap()
            })
        };
        while events.lock().streams < 1 {
            thread::yield_now();
        }
        events.end(PowerMode::Poweroff, Duration::from_secs(10));
        let lines = stream.join().unwrap();
        assert!(lines.matches("\"booted\"").count() <= 1, "{lines}");
        let mut out = Vec::new();
        let late = Events::default();
        late.booted(progress);
        late.end(PowerMode::Poweroff, Duration::ZERO);
        late.stream("boot", &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("\"mode\":\"poweroff\"}\n"));
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
