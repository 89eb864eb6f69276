//! Frames of an exec session: one type byte, a big-endian `u32` length, the payload.
//!
//! ```text
//! client → agent   Stdin data · StdinEnd · Resize rows,cols (2 × u16) · Signal number (u8)
//! agent → client   Stdout data · Stderr data · Credit bytes (u32) · Exit JSON (last frame)
//! ```
//!
//! vsock has no half-close on this path, so the end of input is a frame. Flow control of input is
//! by credit: the client may send [`STDIN_WINDOW`] bytes of stdin, and more after each `Credit`, so
//! that a command that reads slowly does not delay a signal or a resize.

use crate::buffer::Buffer;
use crate::exec::{ExitStatus, WindowSize};

/// Largest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Bytes of type and length before each payload.
pub const HEADER: usize = 5;

/// Bytes of stdin a client may send before the first `Credit`.
pub const STDIN_WINDOW: u32 = 256 * 1024;

/// Maximum number of unread bytes of stdin. The agent grants the difference to [`STDIN_WINDOW`]
/// when the session starts.
pub const STDIN_WINDOW_MAX: u32 = 1024 * 1024;

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Input for the command.
    Stdin(Vec<u8>),
    /// No more input.
    StdinEnd,
    /// The client's terminal has a new size.
    Resize(WindowSize),
    /// Send this signal to the command's process group.
    Signal(u8),
    /// The command's output.
    Stdout(Vec<u8>),
    /// The command's error output.
    Stderr(Vec<u8>),
    /// The client may send this many more bytes of input.
    Credit(u32),
    /// The command has ended; the last frame.
    Exit(ExitStatus),
}

/// Origin of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Its stdout.
    Stdout,
    /// Its stderr.
    Stderr,
}

/// A frame in a [`Decoder`]'s buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The data of a [`Frame::Stdin`], not copied.
    Stdin(&'a [u8]),
    /// Any other frame.
    Frame(Frame),
}

/// A malformed frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Unknown type byte.
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    /// Payload larger than [`MAX_PAYLOAD`].
    #[error("frame payload of {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLong(usize),
    /// Payload with the wrong format for its type.
    #[error("malformed payload in a frame of type {0}")]
    Malformed(u8),
}

const STDIN: u8 = 0;
const STDIN_END: u8 = 1;
const RESIZE: u8 = 2;
const SIGNAL: u8 = 3;
const STDOUT: u8 = 16;
const STDERR: u8 = 17;
const CREDIT: u8 = 18;
const EXIT: u8 = 19;

impl Frame {
    /// Appends the encoded frame to `out`.
    ///
    /// Data longer than [`MAX_PAYLOAD`] is the caller's bug and is split into several frames.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stdin(data) => put_data(out, STDIN, data),
            Self::Stdout(data) => put_data(out, STDOUT, data),
            Self::Stderr(data) => put_data(out, STDERR, data),
            Self::StdinEnd => put(out, STDIN_END, &[]),
            Self::Resize(size) => {
                let [a, b] = size.rows.to_be_bytes();
                let [c, d] = size.cols.to_be_bytes();
                put(out, RESIZE, &[a, b, c, d]);
            }
            Self::Signal(number) => put(out, SIGNAL, &[*number]),
            Self::Credit(bytes) => put(out, CREDIT, &bytes.to_be_bytes()),
            Self::Exit(status) => {
                // A message that does not fit is truncated; the code is kept.
                let json = serde_json::to_vec(&shortened(status)).unwrap_or_default();
                put(out, EXIT, &json);
            }
        }
    }

    /// The bytes before `length` bytes of output, at most [`MAX_PAYLOAD`], as [`Self::Stdout`] or
    /// [`Self::Stderr`]. For data that is read to its place after them.
    pub fn output_header(from: OutputStream, length: usize) -> [u8; HEADER] {
        let kind = match from {
            OutputStream::Stdout => STDOUT,
            OutputStream::Stderr => STDERR,
        };
        let [a, b, c, d] = (length as u32).to_be_bytes();
        [kind, a, b, c, d]
    }

    /// The encoded frame alone.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let malformed = FrameError::Malformed(kind);
        match kind {
            STDIN => Ok(Self::Stdin(payload.to_vec())),
            STDOUT => Ok(Self::Stdout(payload.to_vec())),
            STDERR => Ok(Self::Stderr(payload.to_vec())),
            STDIN_END if payload.is_empty() => Ok(Self::StdinEnd),
            RESIZE => match *payload {
                [a, b, c, d] => Ok(Self::Resize(WindowSize {
                    rows: u16::from_be_bytes([a, b]),
                    cols: u16::from_be_bytes([c, d]),
                })),
                _ => Err(malformed),
            },
            SIGNAL => match *payload {
                [number] => Ok(Self::Signal(number)),
                _ => Err(malformed),
            },
            CREDIT => match *payload {
                [a, b, c, d] => Ok(Self::Credit(u32::from_be_bytes([a, b, c, d]))),
                _ => Err(malformed),
            },
            EXIT => serde_json::from_slice(payload).map(Self::Exit).map_err(|_| malformed),
            STDIN_END => Err(malformed),
            other => Err(FrameError::UnknownType(other)),
        }
    }
}

fn shortened(status: &ExitStatus) -> ExitStatus {
    match status {
        ExitStatus::NotStarted { code, message } => {
            ExitStatus::NotStarted { code: *code, message: message.chars().take(1024).collect() }
        }
        other => other.clone(),
    }
}

fn put_data(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    if data.is_empty() {
        put(out, kind, data);
    }
    for chunk in data.chunks(MAX_PAYLOAD) {
        put(out, kind, chunk);
    }
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Buffers bytes and returns complete frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Buffer,
}

impl Decoder {
    /// Adds what was read from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.push(bytes);
    }

    /// Room for the next bytes of the connection, of this length; then [`Self::filled`].
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        self.buffer.room(length)
    }

    /// Adds the first bytes of [`Self::room`].
    pub fn filled(&mut self, length: usize) {
        self.buffer.filled(length);
    }

    /// Number of bytes after which the next frame is complete, at least 1. Without its header: 1.
    pub fn missing(&self) -> usize {
        let Some((_, length, here)) = self.header() else { return 1 };
        length.min(MAX_PAYLOAD).saturating_sub(here).max(1)
    }

    /// Type and length of the next payload, and how much of it and what follows is here.
    fn header(&self) -> Option<(u8, usize, usize)> {
        let (head, rest) = self.buffer.bytes().split_first_chunk::<HEADER>()?;
        let [kind, a, b, c, d] = *head;
        Some((kind, u32::from_be_bytes([a, b, c, d]) as usize, rest.len()))
    }

    /// The next complete frame; `None` = more bytes are needed.
    ///
    /// # Errors
    /// A malformed frame; the session cannot continue.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.next_payload()? {
            Some((kind, payload)) => Frame::decode(kind, payload).map(Some),
            None => Ok(None),
        }
    }

    /// The next complete frame, without a copy of stdin data.
    ///
    /// # Errors
    /// As [`Self::next_frame`].
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, FrameError> {
        match self.next_payload()? {
            Some((STDIN, payload)) => Ok(Some(Piece::Stdin(payload))),
            Some((kind, payload)) => Frame::decode(kind, payload).map(Piece::Frame).map(Some),
            None => Ok(None),
        }
    }

    /// Removes the next complete frame; returns its type and payload.
    fn next_payload(&mut self) -> Result<Option<(u8, &[u8])>, FrameError> {
        let Some((kind, length, here)) = self.header() else { return Ok(None) };
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if here < length {
            return Ok(None);
        }
        let frame = self.buffer.take(HEADER + length);
        Ok(frame.get(HEADER..).map(|payload| (kind, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(decoder: &mut Decoder) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
        frames
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let data = proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            data.clone().prop_map(Frame::Stdin),
            data.clone().prop_map(Frame::Stdout),
            data.prop_map(Frame::Stderr),
            Just(Frame::StdinEnd),
            any::<(u16, u16)>().prop_map(|(rows, cols)| Frame::Resize(WindowSize { rows, cols })),
            any::<u8>().prop_map(Frame::Signal),
            any::<u32>().prop_map(Frame::Credit),
            any::<u8>().prop_map(|code| Frame::Exit(ExitStatus::Exited { code })),
        ]
    }

    proptest! {
        #[test]
        fn frames_are_decoded_at_any_split(
            frames in proptest::collection::vec(any_frame(), 0..12),
            cut in 1usize..40,
        ) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for (number, piece) in bytes.chunks(cut).enumerate() {
                if number % 2 == 0 {
                    decoder.push(piece);
                } else {
                    decoder.room(piece.len() + 7)[..piece.len()].copy_from_slice(piece);
                    decoder.filled(piece.len());
                }
                seen.extend(all(&mut decoder));
                let missing = decoder.missing();
                let left = bytes.len() - (number * cut + piece.len());
                prop_assert!(missing >= 1 && (left == 0 || missing <= left), "{missing} of {left}");
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn stdin_data_is_not_copied() {
        let mut decoder = Decoder::default();
        let mut bytes = Frame::Stdin(b"in".to_vec()).to_bytes();
        bytes.extend(Frame::output_header(OutputStream::Stderr, 3));
        bytes.extend(b"out");
        Frame::Signal(2).encode(&mut bytes);
        decoder.push(&bytes);
        assert_eq!(decoder.next_piece(), Ok(Some(Piece::Stdin(b"in"))));
        let error = Frame::Stderr(b"out".to_vec());
        assert_eq!(decoder.next_piece(), Ok(Some(Piece::Frame(error))));
        assert_eq!(decoder.next_piece(), Ok(Some(Piece::Frame(Frame::Signal(2)))));
        assert_eq!(decoder.next_piece(), Ok(None));
    }

    #[test]
    fn long_data_is_split() {
        let bytes = Frame::Stdout(vec![7; MAX_PAYLOAD + 1]).to_bytes();
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let sizes: Vec<usize> = all(&mut decoder)
            .into_iter()
            .map(|frame| match frame {
                Frame::Stdout(data) => data.len(),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(sizes, [MAX_PAYLOAD, 1]);
    }

    #[test]
    fn an_oversized_length_is_refused_before_its_payload_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&[STDOUT, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(0xffff_ffff)));
    }
}
