//! Streams of several members or frames, one after the other, as gzip(1) and zstd(1) read them.
//!
//! What follows the last member is ignored: zeros, as tapes have them, or anything else.

use std::io::{self, BufRead, Read};

/// One kind of member.
pub trait Member<R: BufRead>: Read + Sized {
    /// Bytes that tell whether another member follows.
    const MARK_BYTES: usize;
    /// Whether a member begins with these bytes.
    fn begins(mark: &[u8]) -> bool;
    /// Reads one member.
    ///
    /// # Errors
    /// No memory for it.
    fn open(reader: R) -> io::Result<Self>;
    /// The reader after the member.
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

/// Whether these are the first bytes of a frame without data (RFC 8878, section 3.1.2), which zstd
/// and LZ4 share.
pub fn is_skippable(mark: &[u8]) -> bool {
    matches!(mark, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A reader with some bytes put back.
pub struct PutBack<R> {
    front: Vec<u8>,
    inner: R,
}

impl<R: BufRead> Read for PutBack<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for PutBack<R> {
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

impl<R: BufRead> PutBack<R> {
    /// The next bytes, fewer at the end; they are read again afterwards.
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

/// The contents of all members.
pub struct Members<M> {
    member: Option<M>,
}

impl<M> Members<M> {
    /// Reads from the beginning of the first member.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new<R: BufRead>(inner: R) -> io::Result<Self>
    where
        M: Member<PutBack<R>>,
    {
        let reader = PutBack { front: Vec::new(), inner };
        Ok(Self { member: Some(M::open(reader)?) })
    }

    /// Reads as [`Read::read`] does.
    ///
    /// # Errors
    /// A damaged or truncated member; those of the reader.
    pub fn read<R: BufRead>(&mut self, buffer: &mut [u8]) -> io::Result<usize>
    where
        M: Member<PutBack<R>>,
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

    fn all<'a, M: Member<PutBack<io::BufReader<&'a [u8]>>>>(
        bytes: &'a [u8],
    ) -> io::Result<Vec<u8>> {
        // A tiny buffer, so that marks lie across its end.
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
    fn members_are_joined_and_what_follows_is_ignored() {
        type Gzip<'a> = flate2::bufread::GzDecoder<PutBack<io::BufReader<&'a [u8]>>>;
        type Zstd<'a> = zstd::Decoder<'static, PutBack<io::BufReader<&'a [u8]>>>;
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
