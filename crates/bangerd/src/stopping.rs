//! The way out: asked for once, by a signal or a request, and heard everywhere.

use std::sync::Arc;
use std::time::Duration;

use banger_engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use banger_api::{ApiError, ErrorCode};

/// Longest wait for operations that are under way; what is not done then, the next daemon undoes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for the end, and hears of it.
#[derive(Debug, Clone)]
pub struct Stopping(Arc<watch::Sender<bool>>);

impl Default for Stopping {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stopping {
    /// Asks for the end.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Whether somebody has asked.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when somebody has asked.
    pub async fn asked(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = receiver.wait_for(|asked| *asked).await;
    }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals.
    ///
    /// # Errors
    /// sigaction(2).
    pub fn take() -> Result<Self, ApiError> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                ApiError::new(ErrorCode::Internal, "cannot listen to signals").caused_by(&error)
            })
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Resolves with the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for live operations: bounded, and cut short by a second signal.
pub async fn drain(engine: &Engine, signals: &mut Signals) {
    tokio::select! {
        () = engine.quiet() => {}
        () = tokio::time::sleep(PATIENCE) => {
            tracing::warn!("operations are still under way; the next daemon finishes them");
        }
        () = signals.next() => tracing::warn!("a second signal: not waiting any longer"),
    }
}
