//! Messages of a command: the beginning of its standard error.

use banger_agent_proto::exec::ExitStatus;
use banger_api::ApiError;

use crate::exec::{ExecOutput, Output};

/// Adds a piece to what is kept of a stream, up to `limit` bytes in all.
pub fn keep_first(kept: &mut Vec<u8>, piece: Vec<u8>, limit: usize) {
    let room = limit.saturating_sub(kept.len());
    kept.extend(piece.into_iter().take(room));
}

impl ExecOutput {
    /// Waits for the end of the command: its status, and at most `limit` bytes of its standard
    /// error. Its standard output is discarded.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn end(&mut self, limit: usize) -> Result<(ExitStatus, Vec<u8>), ApiError> {
        let mut messages = Vec::new();
        loop {
            match self.next().await? {
                Output::Stdout(_) => {}
                Output::Stderr(piece) => keep_first(&mut messages, piece, limit),
                Output::Exit(status) => return Ok((status, messages)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_kept() {
        let mut kept = Vec::new();
        for piece in ["ab", "cde", "f"] {
            keep_first(&mut kept, piece.into(), 4);
        }
        assert_eq!(kept, b"abcd");
    }
}
