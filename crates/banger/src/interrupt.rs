//! Ctrl-C, counted: the first one interrupts what is under way, the second one leaves at once.

use std::cell::OnceCell;

use banger_client::follow::Interrupts as Counted;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::errors::Failure;

/// How often Ctrl-C was pressed. Until the first call of `listen`, it ends the program as usual.
#[derive(Default)]
pub struct Interrupts(OnceCell<watch::Receiver<u32>>);

impl Interrupts {
    /// Those from now on.
    pub fn listen(&self) -> Counted {
        Counted::new(self.0.get_or_init(count).clone())
    }

    /// Waits for `work`, or leaves at the first Ctrl-C: for waits that leave nothing half-made.
    pub async fn or_leave<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut interrupts = self.listen();
        tokio::select! {
            done = work => Ok(done),
            () = interrupts.next() => Err(Failure::Left),
        }
    }
}

fn count() -> watch::Receiver<u32> {
    let (sender, receiver) = watch::channel(0);
    // Without the signal Ctrl-C keeps its usual meaning, which is not wrong either.
    if let Ok(mut signals) = signal(SignalKind::interrupt()) {
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sender.send_modify(|count: &mut u32| *count = count.saturating_add(1));
            }
        });
    }
    receiver
}
