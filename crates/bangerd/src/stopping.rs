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
#[derive(Debug, Clone)]
pub struct Stopping(Arc<watch::Sender<bool>>);

impl Default for Stopping {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stopping {
    /// Requests the shutdown.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Whether the shutdown was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the shutdown is requested.
    pub async fn requested(&self) {
        let mut receiver = self.0.subscribe();
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
