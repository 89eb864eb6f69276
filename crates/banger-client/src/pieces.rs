//! An archive that arrives in pieces, for readers that block.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The bytes of a channel; its end is theirs. Blocks, so it is read on a thread for that.
pub struct PieceReader {
    from: mpsc::Receiver<Bytes>,
    present: Bytes,
}

impl PieceReader {
    /// Reads the pieces of a channel.
    pub fn new(from: mpsc::Receiver<Bytes>) -> Self {
        Self { from, present: Bytes::new() }
    }
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.present = piece,
                None => return Ok(0),
            }
        }
        let piece = self.present.split_to(self.present.len().min(out.len()));
        out.get_mut(..piece.len()).unwrap_or_default().copy_from_slice(&piece);
        Ok(piece.len())
    }
}
