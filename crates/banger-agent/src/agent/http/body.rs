//! The body of a request, sized or chunked (RFC 9112, section 7.1).

use std::io::{self, Read, Write};

use super::{BodyKind, Connection};

/// Longest chunk-size line, extensions included, and longest run of trailers, in bytes.
const MAX_CHUNK_LINE: usize = 1024;

#[derive(Debug, Clone, Copy)]
enum BodyState {
    /// A chunk-size line comes.
    Size,
    /// Data comes; after it, in a chunked body, an empty line.
    Data {
        left: u64,
        chunked: bool,
    },
    /// The line end after a chunk comes.
    ChunkEnd,
    Done,
}

/// The body of a request. Broken framing reads as [`io::ErrorKind::InvalidData`], an early end as
/// `UnexpectedEof`.
pub struct Body<'a, S> {
    connection: &'a mut Connection<S>,
    state: BodyState,
}

impl<'a, S: Read + Write> Body<'a, S> {
    /// The body that begins at the present place of the connection.
    pub(super) fn new(connection: &'a mut Connection<S>, kind: BodyKind) -> Self {
        let state = match kind {
            BodyKind::Sized(length) => BodyState::Data { left: length, chunked: false },
            BodyKind::Chunked => BodyState::Size,
        };
        Self { connection, state }
    }

    /// Takes a line without its end from the connection.
    fn line(&mut self) -> io::Result<String> {
        loop {
            let buffer = &mut self.connection.buffer;
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line = String::from_utf8(line).map_err(|_| broken())?;
                return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            if buffer.len() > MAX_CHUNK_LINE {
                return Err(broken());
            }
            if self.connection.fill(4096)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Works through framing until there is data or the end.
    fn advance(&mut self) -> io::Result<()> {
        loop {
            self.state = match self.state {
                BodyState::Size => {
                    let line = self.line()?;
                    let digits = line.split(';').next().unwrap_or_default().trim();
                    let valid = (1..=15).contains(&digits.len())
                        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    match u64::from_str_radix(digits, 16) {
                        Ok(0) if valid => self.skip_trailers()?,
                        Ok(left) if valid => BodyState::Data { left, chunked: true },
                        _ => return Err(broken()),
                    }
                }
                BodyState::ChunkEnd => match self.line()?.as_str() {
                    "" => BodyState::Size,
                    _ => return Err(broken()),
                },
                BodyState::Data { left: 0, chunked: true } => BodyState::ChunkEnd,
                BodyState::Data { left: 0, chunked: false } => BodyState::Done,
                BodyState::Data { .. } | BodyState::Done => return Ok(()),
            }
        }
    }

    fn skip_trailers(&mut self) -> io::Result<BodyState> {
        let mut length = 0;
        loop {
            let line = self.line()?;
            length += line.len();
            match line.is_empty() {
                true => return Ok(BodyState::Done),
                false if length > MAX_CHUNK_LINE => return Err(broken()),
                false => {}
            }
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed chunked body")
}

impl<S: Read + Write> Read for Body<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        let BodyState::Data { left, chunked } = self.state else { return Ok(0) };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let out = out.get_mut(..wanted).unwrap_or_default();
        if out.is_empty() {
            return Ok(0);
        }
        let buffer = &mut self.connection.buffer;
        let length = if buffer.is_empty() {
            self.connection.stream.read(out)?
        } else {
            let length = buffer.len().min(out.len());
            for (slot, byte) in out.iter_mut().zip(buffer.drain(..length)) {
                *slot = byte;
            }
            length
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.state = BodyState::Data { left: left - length as u64, chunked };
        Ok(length)
    }
}
