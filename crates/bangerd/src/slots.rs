//! Slots for connections, and whether a client still reads.
//!
//! A client that sends a request and never reads the answer must not occupy a slot. Two rules
//! prevent that: a connection whose client reads nothing for [`UNREAD_TIMEOUT`] is closed; and if
//! all slots of the API are in use, a new connection replaces the one without progress for the
//! longest time. Progress is a byte from the client, or an answer that the client has read.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Time limit for a client that reads nothing.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// More than a socket buffer holds (`net.core.wmem_default` is 208 KiB): a client that was sent
/// this many bytes has read some.
const MORE_THAN_A_BUFFER: usize = 1024 * 1024;

/// Treatment of a new connection if all slots are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits in the accept queue.
    Wait,
    /// It replaces the connection without progress for the longest time.
    CloseIdlest,
}

struct Entry {
    progress: Arc<Mutex<Instant>>,
    close: Arc<Notify>,
}

/// The slots of one socket.
pub struct Slots {
    permits: Arc<Semaphore>,
    most: u32,
    when_full: WhenFull,
    open: Mutex<(u64, BTreeMap<u64, Entry>)>,
}

/// A taken slot, free again when dropped.
pub struct Slot {
    slots: Arc<Slots>,
    number: u64,
    progress: Arc<Mutex<Instant>>,
    close: Arc<Notify>,
    kept: Arc<AtomicBool>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// A table with this many slots, at least one.
    pub fn new(most: u32, when_full: WhenFull) -> Arc<Self> {
        let most = most.max(1);
        let permits = Arc::new(Semaphore::new(most as usize));
        Arc::new(Self { permits, most, when_full, open: Mutex::default() })
    }

    /// Resolves when a slot is free, or immediately if another connection can be closed.
    pub async fn wait(&self) {
        if self.when_full == WhenFull::Wait {
            // The semaphore is never closed.
            let _ = self.permits.acquire().await;
        }
    }

    /// Takes a slot, closing the connection without progress for the longest time if that is the
    /// rule.
    pub async fn take(self: &Arc<Self>) -> Slot {
        if self.when_full == WhenFull::CloseIdlest && self.permits.available_permits() == 0 {
            self.close_idlest();
        }
        let permit = self.permits.clone().acquire_owned().await.ok();
        let progress = Arc::new(Mutex::new(Instant::now()));
        let close = Arc::new(Notify::new());
        let mut open = self.open();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Entry { progress: progress.clone(), close: close.clone() });
        drop(open);
        let kept = Arc::default();
        Slot { slots: self.clone(), number, progress, close, kept, _permit: permit }
    }

    /// Closes the connection without progress for the longest time.
    pub fn close_idlest(&self) {
        if self.when_full == WhenFull::Wait {
            return;
        }
        let open = self.open();
        let idlest = open.1.values().min_by_key(|entry| *lock(&entry.progress));
        if let Some(entry) = idlest {
            tracing::warn!(most = self.most, "closed a connection: all slots are taken");
            entry.close.notify_one();
        }
    }

    /// Resolves when all connections have ended.
    pub async fn all_free(&self) {
        // The semaphore is never closed.
        let _ = self.permits.acquire_many(self.most).await;
    }

    fn open(&self) -> std::sync::MutexGuard<'_, (u64, BTreeMap<u64, Entry>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Exempts the connection from closing: its client may read nothing for long, as in an
    /// interactive session. Other connections are replaced first.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        // Later than any real progress.
        let far = Duration::from_secs(u64::from(u32::MAX));
        *lock(&self.progress) = Instant::now() + far;
    }

    /// Resolves when another connection needs the slot.
    pub async fn closed(&self) {
        self.close.notified().await;
    }

    /// The stream, which records its client's progress here.
    pub fn watch(&self, stream: UnixStream) -> Watched {
        Watched {
            stream,
            progress: self.progress.clone(),
            kept: self.kept.clone(),
            unread: None,
            deadline: Box::pin(tokio::time::sleep(UNREAD_TIMEOUT)),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open().1.remove(&self.number);
    }
}

/// Time since which bytes are unread, and the number of bytes sent since.
#[derive(Debug, Clone, Copy)]
struct Unread {
    since: Instant,
    sent: usize,
}

/// A stream whose writes fail when its client reads nothing for [`UNREAD_TIMEOUT`].
pub struct Watched {
    stream: UnixStream,
    progress: Arc<Mutex<Instant>>,
    kept: Arc<AtomicBool>,
    unread: Option<Unread>,
    deadline: Pin<Box<Sleep>>,
}

impl Watched {
    fn made_progress(&mut self) {
        self.record_progress();
        self.unread = None;
    }

    fn record_progress(&self) {
        if !self.kept.load(Ordering::Relaxed) {
            *lock(&self.progress) = Instant::now();
        }
    }

    /// Called before a write: checks whether the client has read all bytes sent so far.
    fn look(&mut self) -> io::Result<()> {
        let all_read = banger_sys::peer::unread_bytes(&self.stream)? == 0;
        let flowed = self.unread.is_some_and(|unread| unread.sent > MORE_THAN_A_BUFFER);
        if all_read || flowed {
            self.made_progress();
        }
        match self.unread {
            Some(unread) if self.timed_out(unread.since) => Err(not_reading()),
            _ => Ok(()),
        }
    }

    fn timed_out(&self, since: Instant) -> bool {
        !self.kept.load(Ordering::Relaxed) && since.elapsed() >= UNREAD_TIMEOUT
    }

    fn sent(&mut self, bytes: usize) {
        let unread = self.unread.get_or_insert(Unread { since: Instant::now(), sent: 0 });
        unread.sent += bytes;
    }
}

fn not_reading() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does not read")
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.record_progress();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(written) => {
                if let Ok(count) = written {
                    self.sent(count);
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                if self.kept.load(Ordering::Relaxed) {
                    return Poll::Pending;
                }
                // Its buffer is full; the time runs from when it was last seen to read.
                self.sent(0);
                let since = self.unread.map_or_else(Instant::now, |unread| unread.since);
                self.deadline.as_mut().reset(since + UNREAD_TIMEOUT);
                match self.deadline.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Err(not_reading())),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_ends_the_write() {
        let (client, server) = UnixStream::pair().unwrap();
        let slot = Slots::new(1, WhenFull::Wait).take().await;
        let mut watched = slot.watch(server);
        let begun = Instant::now();
        let error = watched.write_all(&vec![0; 8 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= UNREAD_TIMEOUT && begun.elapsed() < 2 * UNREAD_TIMEOUT);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn small_writes_that_are_never_read_end_too() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let slot = Slots::new(1, WhenFull::Wait).take().await;
        let mut watched = slot.watch(server);
        // A reader keeps its connection as long as it likes.
        for _ in 0..10 {
            watched.write_all(b": keep-alive").await.unwrap();
            client.read_exact(&mut [0; 12]).await.unwrap();
            tokio::time::advance(UNREAD_TIMEOUT).await;
        }
        watched.write_all(b"unread").await.unwrap();
        tokio::time::advance(UNREAD_TIMEOUT).await;
        let error = watched.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn the_idlest_gives_up_its_slot() {
        let slots = Slots::new(2, WhenFull::CloseIdlest);
        let idle = slots.take().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let busy = slots.take().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let third = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take().await }
        });
        idle.closed().await;
        drop(idle);
        let third = third.await.unwrap();
        slots.close_idlest();
        busy.closed().await;
        drop((busy, third));
        slots.all_free().await;
    }
}
