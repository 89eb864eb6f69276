//! Progress and cancellation of long work.

use std::io::{self, Read};

use super::FetchError;

/// Receives the progress of a piece of work and can cancel it.
pub trait Progress: Send + Sync {
    /// A new stage begins.
    fn stage(&self, name: &str);
    /// Bytes of this stage done so far, and how many there will be, where that is known.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// How many things of this stage are done that are not bytes; `unit` says what they are.
    fn items(&self, _unit: &str, _done: u64, _total: Option<u64>) {}
    /// A line for the log: a program's output, a file that was left out.
    fn log(&self, line: &str);
    /// A line for the user about something that did not end the work.
    fn warning(&self, line: &str) {
        self.log(line);
    }
    /// Whether the work is to end; asked at least five times a second.
    fn cancelled(&self) -> bool;

    /// Ends the work if that is wanted.
    ///
    /// # Errors
    /// [`FetchError::Cancelled`].
    fn go_on(&self) -> Result<(), FetchError> {
        if self.cancelled() { Err(FetchError::Cancelled) } else { Ok(()) }
    }
}

/// Ignores the progress and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _name: &str) {}
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    fn log(&self, _line: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Bytes between two reports.
const REPORT_BYTES: u64 = 1 << 20;

/// A reader that reports how far it is, and fails when the work is cancelled.
pub struct Counted<'a, R> {
    inner: R,
    done: u64,
    reported: u64,
    total: Option<u64>,
    progress: &'a dyn Progress,
}

impl<'a, R: Read> Counted<'a, R> {
    /// Counts what is read from `inner`, of which there are `total` bytes where that is known.
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
