//! The encoding: frames of a length (4 bytes, little-endian), a type (1 byte) and its fields.
//! Numbers have 8 bytes; byte strings have a length of 4 bytes before them.

use std::fmt;

use crate::{Cause, Entry, Kind, Reply, Request, Stamp};

/// Longest frame without its length, in bytes.
pub const MAX_FRAME: usize = 256 * 1024;

/// A frame that is too long or not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame;

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame of the live folder's protocol is malformed")
    }
}

impl std::error::Error for BadFrame {}

impl From<BadFrame> for std::io::Error {
    fn from(bad: BadFrame) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, bad)
    }
}

/// Received bytes, cut into frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete frame.
    ///
    /// # Errors
    /// A frame longer than [`MAX_FRAME`].
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, BadFrame> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(BadFrame);
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        self.taken += 4 + length;
        Ok(Some(frame))
    }
}

/// Writes one frame to the end of a buffer.
struct Out<'a> {
    to: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> Out<'a> {
    fn new(to: &'a mut Vec<u8>, kind: u8) -> Self {
        let begin = to.len();
        to.extend_from_slice(&[0, 0, 0, 0, kind]);
        Self { to, begin }
    }

    fn byte(&mut self, byte: u8) -> &mut Self {
        self.to.push(byte);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.to.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.to.extend_from_slice(&length.to_le_bytes());
        self.to.extend_from_slice(bytes);
        self
    }

    fn stamp(&mut self, stamp: &Stamp) -> &mut Self {
        let kind = match stamp.kind {
            Kind::File => 1,
            Kind::Program => 2,
            Kind::Folder => 3,
            Kind::Link => 4,
            Kind::Other => 5,
        };
        self.byte(kind).number(stamp.size).number(stamp.inode);
        self.number(stamp.mtime_ns).number(stamp.ctime_ns)
    }

    fn expected(&mut self, stamp: Option<&Stamp>) -> &mut Self {
        match stamp {
            Some(stamp) => self.stamp(stamp),
            None => self.byte(0),
        }
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let length = u32::try_from(self.to.len() - self.begin - 4).unwrap_or(u32::MAX);
        if let Some(place) = self.to.get_mut(self.begin..self.begin + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// Reads the fields of one frame.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn byte(&mut self) -> Result<u8, BadFrame> {
        let (byte, rest) = self.0.split_first().ok_or(BadFrame)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u64, BadFrame> {
        let (number, rest) = self.0.split_first_chunk::<8>().ok_or(BadFrame)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn slice(&mut self) -> Result<&'a [u8], BadFrame> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(BadFrame)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (bytes, rest) = rest.split_at_checked(length).ok_or(BadFrame)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, BadFrame> {
        self.slice().map(<[u8]>::to_vec)
    }

    fn stamp(&mut self) -> Result<Stamp, BadFrame> {
        self.expected()?.ok_or(BadFrame)
    }

    fn expected(&mut self) -> Result<Option<Stamp>, BadFrame> {
        let kind = match self.byte()? {
            0 => return Ok(None),
            1 => Kind::File,
            2 => Kind::Program,
            3 => Kind::Folder,
            4 => Kind::Link,
            5 => Kind::Other,
            _ => return Err(BadFrame),
        };
        let (size, inode) = (self.number()?, self.number()?);
        let (mtime_ns, ctime_ns) = (self.number()?, self.number()?);
        Ok(Some(Stamp { kind, size, inode, mtime_ns, ctime_ns }))
    }

    fn end<T>(self, value: T) -> Result<T, BadFrame> {
        if self.0.is_empty() { Ok(value) } else { Err(BadFrame) }
    }
}

impl Request {
    /// Adds the frame to a buffer.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let mut out = Out::new(to, self.number());
        match self {
            Self::List { path } | Self::Hash { path } | Self::Read { path } => {
                out.bytes(path);
            }
            Self::Write { path, expected, executable, size } => {
                out.bytes(path).expected(expected.as_ref()).byte((*executable).into());
                out.number(*size);
            }
            Self::Folder { path } => {
                out.bytes(path);
            }
            Self::Link { path, target, expected } => {
                out.bytes(path).bytes(target).expected(expected.as_ref());
            }
            Self::Remove { path, expected } => {
                out.bytes(path).stamp(expected);
            }
            Self::Execute { path, expected, executable } => {
                out.bytes(path).stamp(expected).byte((*executable).into());
            }
            Self::Rename { path, name, expected } => {
                out.bytes(path).bytes(name).stamp(expected);
            }
            Self::Data(bytes) => {
                out.bytes(bytes);
            }
            Self::Flush | Self::Abort => {}
        }
    }

    fn number(&self) -> u8 {
        match self {
            Self::List { .. } => 1,
            Self::Hash { .. } => 2,
            Self::Read { .. } => 3,
            Self::Write { .. } => 4,
            Self::Folder { .. } => 5,
            Self::Link { .. } => 6,
            Self::Remove { .. } => 7,
            Self::Execute { .. } => 8,
            Self::Rename { .. } => 9,
            Self::Flush => 10,
            Self::Data(_) => 11,
            Self::Abort => 12,
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// An unknown type, or fields that do not fill the frame.
    pub fn decode(frame: &[u8]) -> Result<Self, BadFrame> {
        let mut fields = In(frame);
        let request = match fields.byte()? {
            1 => Self::List { path: fields.bytes()? },
            2 => Self::Hash { path: fields.bytes()? },
            3 => Self::Read { path: fields.bytes()? },
            4 => Self::Write {
                path: fields.bytes()?,
                expected: fields.expected()?,
                executable: fields.byte()? == 1,
                size: fields.number()?,
            },
            5 => Self::Folder { path: fields.bytes()? },
            6 => Self::Link {
                path: fields.bytes()?,
                target: fields.bytes()?,
                expected: fields.expected()?,
            },
            7 => Self::Remove { path: fields.bytes()?, expected: fields.stamp()? },
            8 => Self::Execute {
                path: fields.bytes()?,
                expected: fields.stamp()?,
                executable: fields.byte()? == 1,
            },
            9 => Self::Rename {
                path: fields.bytes()?,
                name: fields.bytes()?,
                expected: fields.stamp()?,
            },
            10 => Self::Flush,
            11 => Self::Data(fields.bytes()?),
            12 => Self::Abort,
            _ => return Err(BadFrame),
        };
        fields.end(request)
    }
}

impl Reply {
    /// Adds the frame to a buffer.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let mut out = Out::new(to, self.number());
        match self {
            Self::Entries(entries) => {
                for entry in entries {
                    out.bytes(&entry.name).stamp(&entry.stamp).bytes(&entry.target);
                }
            }
            Self::Listed { now_ns, watched } => {
                out.number(*now_ns).byte((*watched).into());
            }
            Self::Data(bytes) => {
                out.bytes(bytes);
            }
            Self::Hashed { stamp, digest, now_ns } => {
                out.stamp(stamp).number(*now_ns).bytes(digest);
            }
            Self::Done { stamp, now_ns } => {
                out.expected(stamp.as_ref()).number(*now_ns);
            }
            Self::Failed { cause, message } => {
                let cause = match cause {
                    Cause::Missing => 1,
                    Cause::Changed => 2,
                    Cause::NotEmpty => 3,
                    Cause::Failed => 4,
                };
                let end = message.len().min(crate::MAX_MESSAGE);
                out.byte(cause).bytes(message.as_bytes().get(..end).unwrap_or_default());
            }
            Self::Dirty(paths) => {
                for path in paths {
                    out.bytes(path);
                }
            }
            Self::Lost | Self::RootGone | Self::Working => {}
        }
    }

    fn number(&self) -> u8 {
        match self {
            Self::Entries(_) => 1,
            Self::Listed { .. } => 2,
            Self::Data(_) => 3,
            Self::Hashed { .. } => 4,
            Self::Done { .. } => 5,
            Self::Failed { .. } => 6,
            Self::Dirty(_) => 7,
            Self::Lost => 8,
            Self::RootGone => 9,
            Self::Working => 10,
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// An unknown type, or fields that do not fill the frame.
    pub fn decode(frame: &[u8]) -> Result<Self, BadFrame> {
        let mut fields = In(frame);
        let reply = match fields.byte()? {
            1 => {
                let mut entries = Vec::new();
                while !fields.0.is_empty() {
                    let (name, stamp) = (fields.bytes()?, fields.stamp()?);
                    entries.push(Entry { name, stamp, target: fields.bytes()? });
                }
                Self::Entries(entries)
            }
            2 => Self::Listed { now_ns: fields.number()?, watched: fields.byte()? == 1 },
            3 => Self::Data(fields.bytes()?),
            4 => {
                let (stamp, now_ns) = (fields.stamp()?, fields.number()?);
                let digest = fields.slice()?.try_into().map_err(|_| BadFrame)?;
                Self::Hashed { stamp, digest, now_ns }
            }
            5 => Self::Done { stamp: fields.expected()?, now_ns: fields.number()? },
            6 => {
                let cause = match fields.byte()? {
                    1 => Cause::Missing,
                    2 => Cause::Changed,
                    3 => Cause::NotEmpty,
                    _ => Cause::Failed,
                };
                let message = fields.slice()?;
                let message = message.get(..crate::MAX_MESSAGE).unwrap_or(message);
                Self::Failed { cause, message: String::from_utf8_lossy(message).into_owned() }
            }
            7 => {
                let mut paths = Vec::new();
                while !fields.0.is_empty() {
                    paths.push(fields.bytes()?);
                }
                Self::Dirty(paths)
            }
            8 => Self::Lost,
            9 => Self::RootGone,
            10 => Self::Working,
            _ => return Err(BadFrame),
        };
        fields.end(reply)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamps() -> impl Strategy<Value = Stamp> {
        let kinds = [Kind::File, Kind::Program, Kind::Folder, Kind::Link, Kind::Other];
        (0..5usize, any::<[u64; 4]>()).prop_map(move |(kind, numbers)| {
            let [size, inode, mtime_ns, ctime_ns] = numbers;
            Stamp { kind: kinds[kind], size, inode, mtime_ns, ctime_ns }
        })
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..9)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            stamp in stamps(), path in bytes(), name in bytes(), on in any::<bool>(), cut in 1..40usize,
        ) {
            let expected = on.then_some(stamp);
            let requests = [
                Request::List { path: path.clone() },
                Request::Write { path: path.clone(), expected, executable: on, size: stamp.size },
                Request::Link { path: path.clone(), target: name.clone(), expected },
                Request::Execute { path: path.clone(), expected: stamp, executable: on },
                Request::Rename { path: path.clone(), name: name.clone(), expected: stamp },
                Request::Remove { path: path.clone(), expected: stamp },
                Request::Data(name.clone()),
                Request::Flush,
                Request::Abort,
            ];
            let entry = Entry { name: name.clone(), stamp, target: path.clone() };
            let replies = [
                Reply::Entries(vec![entry.clone(), entry]),
                Reply::Listed { now_ns: stamp.size, watched: on },
                Reply::Hashed { stamp, digest: [7; 20], now_ns: 3 },
                Reply::Done { stamp: expected, now_ns: 4 },
                Reply::Failed { cause: Cause::NotEmpty, message: "text".into() },
                Reply::Dirty(vec![path, name]),
                Reply::Lost,
            ];
            let mut wire = Vec::new();
            requests.iter().for_each(|request| request.encode(&mut wire));
            let asked = wire.len();
            replies.iter().for_each(|reply| reply.encode(&mut wire));
            let (mut frames, mut read, mut answered) = (Frames::default(), Vec::new(), Vec::new());
            for part in [&wire[..asked], &wire[asked..]] {
                for piece in part.chunks(cut) {
                    frames.push(piece);
                    while let Some(frame) = frames.next_frame().unwrap() {
                        match read.len() < requests.len() {
                            true => read.push(Request::decode(frame).unwrap()),
                            false => answered.push(Reply::decode(frame).unwrap()),
                        }
                    }
                }
            }
            prop_assert_eq!(&read[..], &requests[..]);
            prop_assert_eq!(&answered[..], &replies[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Request::decode(&frame), Reply::decode(&frame));
        }
    }

    #[test]
    fn long_frames_are_refused_before_they_arrive() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        assert_eq!(frames.next_frame(), Err(BadFrame));
    }
}
