//! A queue of bytes that are read to their place: its memory stays initialised, so that a read(2)
//! needs neither a buffer of its own nor zeros beforehand.

use crate::frame::MAX_PAYLOAD;

/// Free bytes at the end are gained by moving the rest to the front if there are at least as many
/// free ones there: moving then costs less than the reads before it.
const MOVED_AFTER: usize = 4 * MAX_PAYLOAD;

/// The queue.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The queued bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// Number of queued bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops all.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room for this number of bytes at the end; then [`Self::filled`].
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        if self.is_empty() {
            self.clear();
        } else if self.start >= MOVED_AFTER {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        let wanted = self.end + length;
        if self.memory.len() < wanted {
            self.memory.resize(wanted, 0);
        }
        self.memory.get_mut(self.end..wanted).unwrap_or_default()
    }

    /// Queues the first bytes of [`Self::room`].
    pub fn filled(&mut self, length: usize) {
        self.end = (self.end + length).min(self.memory.len());
    }

    /// Queues a copy of these bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    /// Removes bytes from the front; returns them. At most all.
    pub fn take(&mut self, length: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + length).min(self.end);
        self.memory.get(from..self.start).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn it_is_a_queue(
            steps in proptest::collection::vec((0usize..3 * MAX_PAYLOAD, 0usize..4 * MAX_PAYLOAD), 1..40),
        ) {
            let (mut buffer, mut model, mut next) = (Buffer::default(), VecDeque::new(), 0u8);
            for (added, taken) in steps {
                let room = buffer.room(added);
                prop_assert_eq!(room.len(), added);
                // A read may fill less than the room.
                let filled = added - added / 3;
                for byte in room.iter_mut().take(filled) {
                    next = next.wrapping_mul(31).wrapping_add(7);
                    *byte = next;
                    model.push_back(next);
                }
                buffer.filled(filled);
                let expected: Vec<u8> = model.drain(..taken.min(model.len())).collect();
                prop_assert_eq!(buffer.take(taken), expected.as_slice());
                prop_assert_eq!(buffer.len(), model.len());
                prop_assert!(buffer.bytes().iter().eq(model.iter()));
            }
        }
    }
}
