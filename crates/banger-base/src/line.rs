//! Framing of messages between the programs: one line of JSON with a maximum length.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message as its line, `\n` included.
///
/// # Errors
/// The message cannot be represented in JSON.
pub fn encode(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The message of a line, with or without its `\n`.
///
/// # Errors
/// The line is not JSON of the expected form.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(line)
}

/// Collects the bytes of one line.
#[derive(Debug)]
pub struct LineBuffer {
    max_bytes: usize,
    bytes: Vec<u8>,
}

/// The line has more bytes than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes that were allowed.
    pub max_bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message is longer than {} bytes", self.max_bytes)
    }
}

impl std::error::Error for TooLong {}

impl LineBuffer {
    /// For a line of at most so many bytes, `\n` included.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: Vec::new() }
    }

    /// Whether no byte has arrived yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds bytes. Returns the line without its `\n` once it is complete; bytes after the `\n` are
    /// dropped, since one message is one line.
    ///
    /// # Errors
    /// The line is longer than allowed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(bytes.len());
        if self.bytes.len() + taken >= self.max_bytes {
            return Err(TooLong { max_bytes: self.max_bytes });
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(end.map(|_| std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_in_any_pieces_is_the_same_line(text: String, sizes in proptest::collection::vec(1usize..9, 1..20)) {
            let line = encode(&text).unwrap();
            let mut buffer = LineBuffer::new(line.len() + 1);
            let (mut at, mut sizes, mut whole) = (0, sizes.iter().cycle(), None);
            while at < line.len() {
                prop_assert_eq!(whole.clone(), None::<Vec<u8>>);
                let next = (at + sizes.next().unwrap()).min(line.len());
                whole = buffer.push(&line[at..next]).unwrap();
                at = next;
            }
            prop_assert_eq!(decode::<String>(&whole.unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn a_long_line_is_refused_at_its_limit() {
        assert_eq!(LineBuffer::new(4).push(b"abc\n"), Ok(Some(b"abc".to_vec())));
        assert_eq!(LineBuffer::new(4).push(b"abcd\n"), Err(TooLong { max_bytes: 4 }));
        let mut endless = LineBuffer::new(1000);
        let refused = (0..).find(|_| endless.push(&[b'x'; 100]).is_err());
        assert_eq!(refused, Some(9));
        let mut two = LineBuffer::new(100);
        assert!(two.is_empty());
        assert_eq!(two.push(b"1"), Ok(None));
        assert_eq!(two.push(b"\n2\n"), Ok(Some(b"1".to_vec())));
    }
}
