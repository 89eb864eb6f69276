//! Reads untrusted tar archives.
//!
//! Supports the formats of GNU tar: v7, ustar, old GNU, GNU and POSIX.1-2001 (pax), all sparse
//! formats, names in any bytes. Every header is checked; the size of extended headers is limited.
//! An archive that ends within an entry is an error. Deviations that GNU tar tolerates are recorded
//! as a [`Warning`].

mod entry;
mod header;
mod pax;
mod pending;
mod sparse;
mod warnings;

use std::io::{self, Read};

use super::tree::TreeError;
use crate::fetch::read_full;
pub use entry::{Entry, EntryKind};
use header::{BLOCK, Field, Header};
use pax::Extension;
pub use pending::{Pending, add};
use sparse::{Expand, Map};
pub use warnings::{Warning, Warnings};

/// Maximum size of an extended header.
const EXTENSION_BYTES: u64 = 1 << 20;

/// Errors of reading an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive ends within an entry.
    #[error("it is truncated")]
    Truncated,
    /// The archive is empty.
    #[error("it is empty")]
    Empty,
    /// An invalid header.
    #[error("it is no tar archive, or damaged (entry {entry})")]
    BadHeader {
        /// Number of the entry, from 0.
        entry: u64,
    },
    /// An entry uses an unsupported feature.
    #[error("entry `{name}` has {feature}")]
    Unsupported {
        /// Name of the entry.
        name: String,
        /// The feature.
        feature: &'static str,
    },
    /// The continuation of a file from another volume.
    #[error("it is one volume of a multi-volume archive: `{name}` begins in the one before it")]
    MultiVolume {
        /// The name of the file.
        name: String,
    },
    /// An invalid path.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// read(2).
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// Whether these bytes start with a valid header.
pub fn is_header(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|block: &[u8; BLOCK]| {
        let header = Header(*block);
        !header.is_zero() && header.has_valid_checksum()
    })
}

/// Types of entries, POSIX pax `typeflag` and GNU tar's `tar.h`.
mod kind {
    pub const OLD_FILE: u8 = 0;
    pub const FILE: u8 = b'0';
    pub const HARD_LINK: u8 = b'1';
    pub const SYMLINK: u8 = b'2';
    pub const CHAR: u8 = b'3';
    pub const BLOCK: u8 = b'4';
    pub const FOLDER: u8 = b'5';
    pub const FIFO: u8 = b'6';
    pub const CONTIGUOUS: u8 = b'7';
    pub const PAX: u8 = b'x';
    pub const SOLARIS_PAX: u8 = b'X';
    pub const PAX_GLOBAL: u8 = b'g';
    /// A folder with a list of its files (incremental backup).
    pub const DUMP_FOLDER: u8 = b'D';
    pub const LONG_LINK: u8 = b'K';
    pub const LONG_NAME: u8 = b'L';
    pub const CONTINUED: u8 = b'M';
    pub const SPARSE: u8 = b'S';
    pub const VOLUME: u8 = b'V';
}

/// Reads an archive entry by entry.
pub struct Reader<R> {
    inner: R,
    index: u64,
    left: u64,
    padding: u64,
    map: Option<Map>,
    global: Extension,
    warnings: Warnings,
}

impl<R: Read> Reader<R> {
    /// A reader of the archive `inner`.
    pub fn new(inner: R) -> Self {
        let (global, warnings) = (Extension::default(), Warnings::default());
        Self { inner, index: 0, left: 0, padding: 0, map: None, global, warnings }
    }

    /// The archive after the entries that were read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Warnings so far.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// A damaged, truncated, or hostile archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        let first = self.index;
        loop {
            let header = match self.skip()? {
                Skipped::All => self.header()?,
                Skipped::MissingPadding => {
                    self.warnings.add(Warning::NoEndMark, b"");
                    None
                }
            };
            let index = self.index;
            let Some(header) = header else {
                // Extended headers without their entry.
                let cut = index > first && self.warnings.has(Warning::NoEndMark);
                return if cut { Err(TarError::Truncated) } else { Ok(None) };
            };
            self.index += 1;
            let bad = || TarError::BadHeader { entry: index };
            let kind = header.kind();
            self.measure(&header, &extension, index)?;
            match kind {
                kind::PAX | kind::SOLARIS_PAX => {
                    let text = self.extended_header(index)?;
                    extension.read(&text).ok_or_else(bad)?;
                }
                kind::PAX_GLOBAL => {
                    let text = self.extended_header(index)?;
                    self.global.read(&text).ok_or_else(bad)?;
                    extension = self.global.clone();
                }
                kind::LONG_NAME => long_name = Some(self.name(index)?),
                kind::LONG_LINK => long_link = Some(self.name(index)?),
                kind::VOLUME => {}
                _ => {
                    extension.path = extension.path.or(long_name);
                    extension.link = extension.link.or(long_link);
                    return self.entry(&header, extension, index).map(Some);
                }
            }
        }
    }

    /// Sets the size of the content that follows a header.
    fn measure(&mut self, header: &Header, next: &Extension, index: u64) -> Result<(), TarError> {
        let bad = || TarError::BadHeader { entry: index };
        let kind = header.kind();
        let declared = header.number(Field::Size).and_then(|size| u64::try_from(size).ok());
        let size = match next.size.filter(|_| !is_extension(kind)) {
            Some(size) => size,
            None => declared.ok_or_else(bad)?,
        };
        self.left = if has_content(kind) { size } else { 0 };
        self.padding = self.left.wrapping_neg() % BLOCK as u64;
        self.map = None;
        Ok(())
    }

    /// The unread content of the last returned entry; for a sparse file the concatenation of its
    /// block extents.
    pub fn content(&mut self) -> impl Read + '_ {
        let Self { inner, left, map, .. } = self;
        let body = Body { inner, left };
        match map {
            Some(map) => EntryReader::Sparse(Expand::new(body, map)),
            None => EntryReader::Plain(body),
        }
    }

    /// Skips the unread content of an entry.
    fn skip(&mut self) -> Result<Skipped, TarError> {
        let (left, rest) = (self.left, self.left.saturating_add(self.padding));
        (self.left, self.padding) = (0, 0);
        let passed = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink());
        match passed.map_err(TarError::Read)? {
            passed if passed == rest => Ok(Skipped::All),
            // Some writers leave out the padding after the last file.
            passed if passed >= left => Ok(Skipped::MissingPadding),
            _ => Err(TarError::Truncated),
        }
    }

    /// The next header with a valid checksum; `None` at a block of zeros or the end of the file.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header([0; BLOCK]);
        let count = read_full(&mut self.inner, &mut header.0).map_err(TarError::Read)?;
        match (count, self.index) {
            (0, 0) => return Err(TarError::Empty),
            (0, _) => {
                self.warnings.add(Warning::NoEndMark, b"");
                return Ok(None);
            }
            (BLOCK, _) => {}
            (_, 0) => return Err(TarError::BadHeader { entry: 0 }),
            _ => return Err(TarError::Truncated),
        }
        if header.is_zero() {
            return if self.index == 0 { Err(TarError::Empty) } else { Ok(None) };
        }
        if !header.has_valid_checksum() {
            return Err(TarError::BadHeader { entry: self.index });
        }
        Ok(Some(header))
    }

    fn extended_header(&mut self, index: u64) -> Result<Vec<u8>, TarError> {
        let size = self.left;
        if size > EXTENSION_BYTES {
            return Err(TarError::BadHeader { entry: index });
        }
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes).map_err(TarError::Read)?;
        if bytes.len() as u64 != size {
            return Err(TarError::Truncated);
        }
        Ok(bytes)
    }

    /// The content of a GNU long-name entry, up to its first zero byte.
    fn name(&mut self, index: u64) -> Result<Vec<u8>, TarError> {
        self.extended_header(index).map(|bytes| header::until_zero(&bytes).to_vec())
    }
}

/// Result of skipping an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skipped {
    All,
    /// The archive ended in the padding.
    MissingPadding,
}

/// The stored bytes of an entry.
struct Body<'a, R> {
    inner: &'a mut R,
    left: &'a mut u64,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(*self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..want])?;
        *self.left -= count as u64;
        Ok(count)
    }
}

enum EntryReader<'a, R> {
    Plain(Body<'a, R>),
    Sparse(Expand<'a, Body<'a, R>>),
}

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(body) => body.read(buffer),
            Self::Sparse(expand) => expand.read(buffer),
        }
    }
}

fn is_extension(kind: u8) -> bool {
    matches!(
        kind,
        kind::PAX | kind::SOLARIS_PAX | kind::PAX_GLOBAL | kind::LONG_NAME | kind::LONG_LINK
    )
}

/// Links, devices and folders have no content, regardless of their size field (POSIX pax,
/// `typeflag`).
fn has_content(kind: u8) -> bool {
    let without =
        [kind::HARD_LINK, kind::SYMLINK, kind::CHAR, kind::BLOCK, kind::FOLDER, kind::FIFO];
    !without.contains(&kind)
}

#[cfg(test)]
mod tests;
