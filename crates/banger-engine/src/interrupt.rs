//! Interruption of waits, by a cancel or by the end of the VMM: a message, never a dropped future.

use tokio::sync::watch;

use crate::drivers::ExitStory;

/// Why a wait is interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The operation was cancelled.
    Cancelled,
    /// The VMM has ended.
    VmmExited(Box<ExitStory>),
}

/// The receiving side; checked between steps and within waits.
#[derive(Debug, Clone)]
pub struct Interrupt {
    cancel: watch::Receiver<bool>,
    exit: watch::Receiver<Option<ExitStory>>,
}

/// The sending side of a cancel.
#[derive(Debug, Clone)]
pub struct Canceller(watch::Sender<bool>);

impl Canceller {
    /// A new pair of sender and receiver.
    pub fn new() -> (Self, watch::Receiver<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), receiver)
    }

    /// Cancels.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Interrupt {
    /// Receives both kinds.
    pub fn new(cancel: watch::Receiver<bool>, exit: watch::Receiver<Option<ExitStory>>) -> Self {
        Self { cancel, exit }
    }

    /// An interrupt that is never raised.
    pub fn never() -> Self {
        Self { cancel: watch::channel(false).1, exit: watch::channel(None).1 }
    }

    /// Whether it has been raised already.
    pub fn now(&self) -> Option<Reason> {
        if let Some(story) = self.exit.borrow().as_ref() {
            return Some(Reason::VmmExited(Box::new(story.clone())));
        }
        self.cancel.borrow().then_some(Reason::Cancelled)
    }

    /// Resolves when it is raised; never, if it never is.
    pub async fn raised(&self) -> Reason {
        let mut cancel = self.cancel.clone();
        let mut exit = self.exit.clone();
        loop {
            if let Some(reason) = self.now() {
                return reason;
            }
            // A closed channel never changes again: wait for the other one.
            let changed = tokio::select! {
                changed = cancel.changed() => changed.map_err(|_| Closed::Cancel),
                changed = exit.changed() => changed.map_err(|_| Closed::Exit),
            };
            match changed {
                Ok(()) => {}
                Err(Closed::Cancel) => cancel = watch_forever(exit.changed(), cancel).await,
                Err(Closed::Exit) => exit = watch_forever(cancel.changed(), exit).await,
            }
        }
    }
}

enum Closed {
    Cancel,
    Exit,
}

/// Waits for one channel only; forever if that is closed too.
async fn watch_forever<T>(
    other: impl Future<Output = Result<(), watch::error::RecvError>>,
    closed: T,
) -> T {
    if other.await.is_err() {
        std::future::pending::<()>().await;
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_is_received_before_and_during_a_wait() {
        let (canceller, cancelled) = Canceller::new();
        let (_exit, exit) = watch::channel(None);
        let interrupt = Interrupt::new(cancelled, exit);
        assert_eq!(interrupt.now(), None);
        let waiting = tokio::spawn({
            let interrupt = interrupt.clone();
            async move { interrupt.raised().await }
        });
        canceller.cancel();
        assert_eq!(waiting.await.unwrap(), Reason::Cancelled);
        assert_eq!(interrupt.now(), Some(Reason::Cancelled));
    }

    #[tokio::test]
    async fn an_exit_is_noticed_without_a_cancel_handle() {
        let (canceller, cancelled) = Canceller::new();
        let (exit, exited) = watch::channel(None);
        let interrupt = Interrupt::new(cancelled, exited);
        let waiting = tokio::spawn(async move { interrupt.raised().await });
        drop(canceller);
        tokio::task::yield_now().await;
        exit.send_replace(Some(ExitStory::unknown("gone")));
        assert!(matches!(waiting.await.unwrap(), Reason::VmmExited(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn never_is_never() {
        let never = Interrupt::never();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(9), never.raised()).await;
        assert!(waited.is_err());
    }
}
