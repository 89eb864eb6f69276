//! Refuses files that unpack to much more than they have.

use std::io::{self, Read};

use super::oci::OciError;

/// A file unpacks to at most this many times its stored size, beyond [`FREE_BYTES`].
const RATIO: u64 = 100;
const FREE_BYTES: u64 = 1 << 30;

/// A reader of unpacked content that fails when there is too much of it.
pub struct Limited<R> {
    inner: R,
    left: u64,
    name: String,
    bytes: u64,
}

/// Maximum length of the content of a file with so many bytes.
fn limit(bytes: u64) -> u64 {
    FREE_BYTES.max(bytes.saturating_mul(RATIO))
}

impl<R> Limited<R> {
    /// The content of the file `name`, which has `bytes` bytes as it is stored.
    pub fn new(inner: R, name: &str, bytes: u64) -> Self {
        Self { inner, left: limit(bytes), name: name.to_owned(), bytes }
    }

    /// The reader.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            let (name, bytes) = (self.name.clone(), self.bytes);
            let limit_mib = limit(bytes) >> 20;
            return Err(io::Error::other(OciError::Bomb { name, bytes, limit_mib }));
        };
        self.left = left;
        Ok(count)
    }
}
