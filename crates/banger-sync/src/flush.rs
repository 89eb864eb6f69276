//! Both sides on their disks, without holding up the copying: syncfs(2) takes as long as there is
//! something to write, so it is asked for over connections of its own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use banger_sync_side::{Reply, Request};

use crate::peer::{Bell, Peer};

/// Longest time for writing to a disk.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait of a session that ends.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes both sides to their disks, one time after another.
pub struct Flusher {
    orders: Sender<()>,
    ends: Receiver<io::Result<()>>,
    is_running: bool,
}

impl Flusher {
    /// Uses these connections; rings the bell at each end.
    ///
    /// # Errors
    /// No threads are left.
    pub fn new(mut sides: [Peer; 2], bell: &Arc<Bell>) -> io::Result<Self> {
        let (orders, ordered) = channel::<()>();
        let (ended, ends) = channel();
        let bell = bell.clone();
        thread::Builder::new().name("sync-flush".into()).spawn(move || {
            while ordered.recv().is_ok() {
                let flushed = flush(&mut sides);
                if ended.send(flushed).is_err() {
                    return;
                }
                bell.flushed();
            }
        })?;
        Ok(Self { orders, ends, is_running: false })
    }

    /// Whether it was begun, and its end was not taken.
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Begins. One that is running counts only for what was written before it began.
    pub fn begin(&mut self) {
        // A thread that is gone is found by the end.
        let _ = self.orders.send(());
        self.is_running = true;
    }

    /// The end, if it is there.
    ///
    /// # Errors
    /// A side failed.
    pub fn end(&mut self) -> io::Result<bool> {
        match self.ends.try_recv() {
            Ok(result) => {
                self.is_running = false;
                result.map(|()| true)
            }
            Err(_) => Ok(false),
        }
    }

    /// Writes everything, and waits for it.
    ///
    /// # Errors
    /// A side failed, or takes too long.
    pub fn run(&mut self) -> io::Result<()> {
        if self.is_running {
            self.wait()?;
        }
        self.begin();
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let ended = self.ends.recv_timeout(END_TIMEOUT).map_err(|error| match error {
            RecvTimeoutError::Timeout => io::ErrorKind::TimedOut,
            RecvTimeoutError::Disconnected => io::ErrorKind::BrokenPipe,
        });
        self.is_running = false;
        ended?
    }
}

fn flush(sides: &mut [Peer; 2]) -> io::Result<()> {
    for side in &mut *sides {
        side.send(&Request::Flush)?;
        side.flush()?;
    }
    for side in sides {
        match side.reply_within(TIMEOUT)? {
            Reply::Done { .. } => {}
            Reply::Failed { message, .. } => return Err(io::Error::other(message)),
            _ => return Err(side.wrong()),
        }
    }
    Ok(())
}
