//! The body of an answer in chunks (RFC 9112, section 7.1).

use std::io::{self, IoSlice, Write};

/// The body of an answer, written in chunks. Without [`Chunks::finish`] the client sees a broken
/// body, which reports an error in the middle.
pub struct Chunks<'a, S> {
    stream: &'a mut S,
}

impl<'a, S: Write> Chunks<'a, S> {
    /// Begins after the head of the answer.
    pub(super) fn new(stream: &'a mut S) -> Self {
        Self { stream }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// The stream's.
    pub fn finish(self) -> io::Result<()> {
        self.finish_with(&[])
    }

    /// Ends the body with trailers (RFC 9112, section 7.1.2).
    ///
    /// # Errors
    /// The stream's.
    pub fn finish_with(self, trailers: &[(&str, String)]) -> io::Result<()> {
        let mut end = "0\r\n".to_owned();
        for (name, value) in trailers {
            end.push_str(&format!("{name}: {value}\r\n"));
        }
        end.push_str("\r\n");
        self.stream.write_all(end.as_bytes())
    }
}

impl<S: Write> Write for Chunks<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A chunk of no length would end the body.
        if !bytes.is_empty() {
            let head = format!("{:x}\r\n", bytes.len());
            let mut parts =
                [IoSlice::new(head.as_bytes()), IoSlice::new(bytes), IoSlice::new(b"\r\n")];
            let mut parts = parts.as_mut_slice();
            while !parts.is_empty() {
                match self.stream.write_vectored(parts) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(length) => IoSlice::advance_slices(&mut parts, length),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
