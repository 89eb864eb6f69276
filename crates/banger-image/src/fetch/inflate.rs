//! Decompression within this process.

use std::io::{self, BufReader, Read};

use super::Compression;
use super::members::{Members, PushbackReader};

/// Number of compressed bytes read at once.
const BUFFER_BYTES: usize = 1 << 17;

type Buffered<R> = PushbackReader<BufReader<R>>;

/// A reader of gzip, zstd or uncompressed content.
pub enum Inflate<R: Read> {
    /// Uncompressed.
    Plain(R),
    /// RFC 1952, all members.
    Gzip(Box<Members<flate2::bufread::GzDecoder<Buffered<R>>>>),
    /// RFC 8878, all frames.
    Zstd(Box<Members<zstd::Decoder<'static, Buffered<R>>>>),
}

impl<R: Read> Inflate<R> {
    /// Reads from the start of `packed`; formats other than gzip and zstd are read as they are.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(compression: Compression, packed: R) -> io::Result<Self> {
        let buffered = |packed| BufReader::with_capacity(BUFFER_BYTES, packed);
        Ok(match compression {
            Compression::Gzip => Self::Gzip(Box::new(Members::new(buffered(packed))?)),
            Compression::Zstd => Self::Zstd(Box::new(Members::new(buffered(packed))?)),
            _ => Self::Plain(packed),
        })
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(members) => members.read(buffer),
            Self::Zstd(members) => members.read(buffer),
        }
    }
}

/// Reads until `buffer` is full or the reader ends; returns the number of bytes.
///
/// # Errors
/// Those of the reader, except interruptions.
pub fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
