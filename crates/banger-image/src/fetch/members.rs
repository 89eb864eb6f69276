//! Streams of several consecutive members or frames, as gzip(1) and zstd(1) read them.
//!
//! Data after the last member is ignored: zeros of a tape, or anything else.

use std::io::{self, BufRead, Read};

/// A type of member.
pub trait Member<R: BufRead>: Read + Sized {
    /// Number of bytes that identify a further member.
    const MARK_BYTES: usize;
    /// Whether a member starts with these bytes.
    fn begins(mark: &[u8]) -> bool;
    /// Reads one member.
    ///
    /// # Errors
    /// Out of memory.
    fn open(reader: R) -> io::Result<Self>;
    /// The underlying reader, positioned after the member.
    fn into_reader(self) -> R;
}

impl<R: BufRead> Member<R> for flate2::bufread::GzDecoder<R> {
    const MARK_BYTES: usize = 2;

    fn begins(mark: &[u8]) -> bool {
        mark == [0x1f, 0x8b]
    }

    fn open(reader: R) -> io::Result<Self> {
        Ok(Self::new(reader))
    }

    fn into_reader(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> Member<R> for zstd::Decoder<'static, R> {
    const MARK_BYTES: usize = 4;

    fn begins(mark: &[u8]) -> bool {
        mark == [0x28, 0xb5, 0x2f, 0xfd] || is_skippable(mark)
    }

    fn open(reader: R) -> io::Result<Self> {
        Ok(Self::with_buffer(reader)?.single_frame())
    }

    fn into_reader(self) -> R {
        self.finish()
    }
}

/// Whether these are the first bytes of a skippable frame (RFC 8878, section 3.1.2), which zstd and
/// LZ4 share.
pub fn is_skippable(mark: &[u8]) -> bool {
    matches!(mark, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A reader with bytes to read again.
pub struct PushbackReader<R> {
    front: Vec<u8>,
    inner: R,
}

impl<R: BufRead> Read for PushbackReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for PushbackReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.front.is_empty() { self.inner.fill_buf() } else { Ok(&self.front) }
    }

    fn consume(&mut self, count: usize) {
        if self.front.is_empty() {
            self.inner.consume(count);
        } else {
            self.front.drain(..count);
        }
    }
}

impl<R: BufRead> PushbackReader<R> {
    /// The next bytes, fewer at the end, without consuming them.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.front.len() < count {
            let want = (count - self.front.len()) as u64;
            if (&mut self.inner).take(want).read_to_end(&mut self.front)? == 0 {
                break;
            }
        }
        Ok(&self.front)
    }
}

/// The content of all members.
pub struct Members<M> {
    member: Option<M>,
}

impl<M> Members<M> {
    /// Reads from the start of the first member.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new<R: BufRead>(inner: R) -> io::Result<Self>
    where
        M: Member<PushbackReader<R>>,
    {
        let reader = PushbackReader { front: Vec::new(), inner };
        Ok(Self { member: Some(M::open(reader)?) })
    }

    /// As [`Read::read`].
    ///
    /// # Errors
    /// A damaged or truncated member; errors of the reader.
    pub fn read<R: BufRead>(&mut self, buffer: &mut [u8]) -> io::Result<usize>
    where
        M: Member<PushbackReader<R>>,
    {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            match member.read(buffer)? {
                0 if !buffer.is_empty() => {}
                count => return Ok(count),
            }
            let Some(member) = self.member.take() else { return Ok(0) };
            let mut reader = member.into_reader();
            if M::begins(reader.peek(M::MARK_BYTES)?) {
                self.member = Some(M::open(reader)?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn all<'a, M: Member<PushbackReader<io::BufReader<&'a [u8]>>>>(
        bytes: &'a [u8],
    ) -> io::Result<Vec<u8>> {
        // A tiny buffer, so that magic numbers cross its end.
        let mut members = Members::<M>::new(io::BufReader::with_capacity(3, bytes))?;
        let (mut all, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match members.read(&mut buffer)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[test]
    fn members_are_joined_and_trailing_data_ignored() {
        type Gzip<'a> = flate2::bufread::GzDecoder<PushbackReader<io::BufReader<&'a [u8]>>>;
        type Zstd<'a> = zstd::Decoder<'static, PushbackReader<io::BufReader<&'a [u8]>>>;
        let (one, two) = (gzip(b"one "), gzip(b"two"));
        let skippable = b"\x50\x2a\x4d\x18\x08\0\0\0nothing!";
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        for tail in [&b""[..], &[0; 1000], b"garbage", b"\x1f"] {
            let bytes = [&one, &two, tail].concat();
            assert_eq!(all::<Gzip>(&bytes).unwrap(), b"one two", "{tail:?}");
            let bytes =
                [skippable, &zstd(b"one ")[..], skippable, &zstd(b"two"), skippable, tail].concat();
            assert_eq!(all::<Zstd>(&bytes).unwrap(), b"one two", "{tail:?}");
        }
        assert!(all::<Gzip>(&[&one[..], &two[..12]].concat()).is_err());
        let cut = [&zstd(b"one ")[..], &zstd(b"two")[..9]].concat();
        assert!(all::<Zstd>(&cut).is_err());
    }
}
