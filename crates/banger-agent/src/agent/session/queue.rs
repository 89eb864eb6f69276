//! Bytes on their way to a descriptor that takes only some of them at a time.

use std::os::fd::AsFd;

use banger_agent_proto::frame::MAX_PAYLOAD;
use rustix::io::{Errno, write};

/// Written bytes are dropped from the front once there are more than this.
const MOVED_AFTER: usize = 4 * MAX_PAYLOAD;

/// Bytes waiting to be written.
#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Writes what fits; the number of bytes written.
    ///
    /// # Errors
    /// As write(2).
    pub fn write_to(&mut self, fd: impl AsFd) -> Result<usize, Errno> {
        let written = write(fd, self.bytes.get(self.start..).unwrap_or_default())?;
        self.start += written;
        if self.is_empty() {
            self.clear();
        }
        Ok(written)
    }

    /// Room at the end, without moving what little is left more often than needed.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.start > MOVED_AFTER {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }
}
