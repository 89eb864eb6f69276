//! Shutdown of the daemon: requested once, by a signal or by the API, and broadcast to all tasks.

use std::sync::Arc;
use std::time::Duration;

use banger_engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use banger_api::{ApiError, ErrorCode};

/// Time limit for operations in progress; the next daemon undoes the unfinished ones.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The shutdown request: sets it and waits for it.
#[derive(Clone, Default)]
pub struct Stopping(Arc<Inner>);

#[derive(Default)]
struct Inner {
    requested: watch::Sender<bool>,
    announce: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Stopping {
    /// `announce` is called at the first request, before any client or task learns of it: it tells
    /// other daemons, so that one that is started after the answer to the request waits.
    pub fn new(announce: impl Fn() + Send + Sync + 'static) -> Self {
        let announce: Option<Box<dyn Fn() + Send + Sync>> = Some(Box::new(announce));
        Self(Arc::new(Inner { announce, ..Inner::default() }))
    }

    /// Requests the shutdown.
    pub fn request(&self) {
        self.0.requested.send_if_modified(|requested| {
            if *requested {
                return false;
            }
            if let Some(announce) = &self.0.announce {
                announce();
            }
            *requested = true;
            true
        });
    }

    /// Whether the shutdown was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.requested.borrow()
    }

    /// Resolves when the shutdown is requested.
    pub async fn requested(&self) {
        let mut receiver = self.0.requested.subscribe();
        // `self` owns the sender, so this cannot fail.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs handlers for both signals.
    ///
    /// # Errors
    /// sigaction(2).
    pub fn take() -> Result<Self, ApiError> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                ApiError::new(ErrorCode::Internal, "cannot install signal handlers")
                    .caused_by(&error)
            })
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Resolves with the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for operations in progress, until the time limit or a second signal.
pub async fn drain(engine: &Engine, signals: &mut Signals) {
    tokio::select! {
        () = engine.idle() => {}
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            tracing::warn!("operations are still in progress; the next daemon finishes them");
        }
        () = signals.next() => tracing::warn!("second signal: stopped waiting"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_request_is_announced_once_before_it_is_seen() {
        let announced = Arc::new(AtomicU32::new(0));
        let stopping = Stopping::new({
            let announced = announced.clone();
            move || {
                announced.fetch_add(1, Ordering::Relaxed);
            }
        });
        let seen = tokio::spawn({
            let (stopping, announced) = (stopping.clone(), announced.clone());
            async move {
                stopping.requested().await;
                announced.load(Ordering::Relaxed)
            }
        });
        stopping.request();
        stopping.request();
        assert_eq!(announced.load(Ordering::Relaxed), 1, "before `request` returns");
        assert_eq!(seen.await.unwrap(), 1);
        assert!(stopping.is_requested());
    }
}
