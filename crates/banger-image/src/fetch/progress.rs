//! Progress and cancellation of long work.

use std::io::{self, Read};

use super::FetchError;

/// Receives the progress of an operation, and can cancel it.
pub trait Progress: Send + Sync {
    /// A new stage starts.
    fn stage(&self, name: &str);
    /// Bytes of this stage completed, and the total if known.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// Items of this stage completed other than bytes; `unit` names them.
    fn items(&self, _unit: &str, _done: u64, _total: Option<u64>) {}
    /// A line for the log: output of a program, a skipped file.
    fn log(&self, line: &str);
    /// A warning for the user.
    fn warning(&self, line: &str) {
        self.log(line);
    }
    /// Whether the operation is cancelled; called at least five times per second.
    fn cancelled(&self) -> bool;

    /// Returns an error if the operation is cancelled.
    ///
    /// # Errors
    /// [`FetchError::Cancelled`].
    fn go_on(&self) -> Result<(), FetchError> {
        if self.cancelled() { Err(FetchError::Cancelled) } else { Ok(()) }
    }
}

/// A [`Progress`] that ignores all calls and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _name: &str) {}
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    fn log(&self, _line: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Number of bytes between two reports.
const REPORT_BYTES: u64 = 1 << 20;

/// A reader that reports its progress, and fails if the operation is cancelled.
pub struct Counted<'a, R> {
    inner: R,
    done: u64,
    reported: u64,
    total: Option<u64>,
    progress: &'a dyn Progress,
}

impl<'a, R: Read> Counted<'a, R> {
    /// Counts the bytes read from `inner`, which has `total` bytes if known.
    pub fn new(inner: R, total: Option<u64>, progress: &'a dyn Progress) -> Self {
        Self { inner, done: 0, reported: 0, total, progress }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        if self.done - self.reported >= REPORT_BYTES || count == 0 {
            self.reported = self.done;
            self.progress.bytes(self.done, self.total);
            if self.progress.cancelled() {
                return Err(FetchError::Cancelled.into_io());
            }
        }
        Ok(count)
    }
}
