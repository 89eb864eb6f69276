//! Joins the blocking side of a copy, which reads and writes files, to the connection: pieces of an
//! archive pass through a bounded channel.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// Pieces in a channel: with pieces of 256 KiB, 1 MiB.
pub const PIECES: usize = 4;

/// Counts bytes on one side and reports them on the other.
#[derive(Clone)]
pub struct Counter {
    bytes: Arc<AtomicU64>,
    changed: watch::Sender<u64>,
}

impl Default for Counter {
    /// At zero.
    fn default() -> Self {
        Self { bytes: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Counter {
    /// Adds bytes.
    pub fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.changed.send_replace(before + bytes as u64);
    }

    /// The present sum.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Runs `work`, with reports of the sum meanwhile.
    pub async fn reported<T>(
        &self,
        report: &mut (impl FnMut(u64) + ?Sized),
        work: impl Future<Output = T>,
    ) -> T {
        let mut changed = self.changed.subscribe();
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                // This counter is also the sender: it is not closed.
                _ = changed.changed() => report(*changed.borrow_and_update()),
            }
        }
    }
}

/// The archive on its way to the connection.
pub struct PieceWriter {
    /// To the connection.
    pub to: mpsc::Sender<io::Result<Bytes>>,
    /// Counts what was passed on.
    pub counter: Counter,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        // The connection has ended; the answer has the reason.
        self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.counter.add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::PieceReader;

    #[tokio::test]
    async fn pieces_arrive_in_order_and_are_counted() {
        let (to, mut sent) = mpsc::channel(PIECES);
        let (passing, from) = mpsc::channel(PIECES);
        let counter = Counter::default();
        let mut writer = PieceWriter { to, counter: counter.clone() };
        let data: Vec<u8> = (0..1_u32 << 16).flat_map(u32::to_le_bytes).collect();
        let all = data.clone();
        let writing = tokio::task::spawn_blocking(move || {
            all.chunks(10_001).for_each(|piece| writer.write_all(piece).unwrap());
        });
        let reading = tokio::task::spawn_blocking(move || {
            let mut back = Vec::new();
            PieceReader::new(from).read_to_end(&mut back).unwrap();
            back
        });
        let mut reported = 0;
        let pass = async {
            while let Some(piece) = sent.recv().await {
                passing.send(piece.unwrap()).await.unwrap();
            }
            drop(passing);
        };
        counter.reported(&mut |bytes| reported = bytes, pass).await;
        writing.await.unwrap();
        assert!(reading.await.unwrap() == data, "other bytes arrived");
        assert_eq!(counter.bytes(), data.len() as u64);
        assert!(reported > 0 && reported <= counter.bytes());
    }
}
