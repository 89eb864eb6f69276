//! Counts Ctrl-C: the first one interrupts the operation, the second one ends the wait at once.

use std::cell::OnceCell;

use banger_client::follow::Interrupts as Counted;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::errors::Failure;

/// Number of SIGINT. Until the first call of `listen`, SIGINT ends the program.
#[derive(Default)]
pub struct Interrupts(OnceCell<watch::Receiver<u32>>);

impl Interrupts {
    /// Interrupts from now on.
    pub fn listen(&self) -> Counted {
        Counted::new(self.0.get_or_init(count).clone())
    }

    /// Runs `work` to its end or to the first Ctrl-C. For requests without an effect to undo.
    pub async fn run_interruptible<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut interrupts = self.listen();
        tokio::select! {
            done = work => Ok(done),
            () = interrupts.next() => Err(Failure::WaitEnded),
        }
    }
}

fn count() -> watch::Receiver<u32> {
    let (sender, receiver) = watch::channel(0);
    // Without a handler, SIGINT ends the program.
    if let Ok(mut signals) = signal(SignalKind::interrupt()) {
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sender.send_modify(|count: &mut u32| *count = count.saturating_add(1));
            }
        });
    }
    receiver
}
