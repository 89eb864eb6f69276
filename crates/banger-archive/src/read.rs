//! Reads the descriptions of entries, each within limits, and their data.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use crate::entry::{BLOCK, Entry, Kind, MAX_FILE_BYTES, MAX_SEGMENTS, Segment};
use crate::failure::{Failure, shown};

mod extension;

use extension::{Extension, MAX_EXTENSION};

/// Reads an archive, entry after entry.
pub struct Reader<R> {
    from: R,
    /// Bytes of data of the present entry not yet read.
    left: u64,
    /// Bytes that pad it to a block.
    padding: u64,
}

impl<R: Read> Reader<R> {
    /// Begins to read.
    pub fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0 }
    }

    /// The stream behind the archive.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next entry, skipping what is left of the present one; none at the end mark.
    ///
    /// # Errors
    /// A malformed archive, one without an end mark, or the stream's.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Failure> {
        let mut extension = Extension::default();
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            let size = extension.size().map_or_else(|| header.entry_size(), Ok);
            let size = size.map_err(|error| broken(&header, &error.to_string()))?;
            if size > MAX_FILE_BYTES {
                return Err(broken(&header, "a file is at most 16 TiB large"));
            }
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK) - size;
            let kind = header.entry_type();
            if extension::is_extension(kind) {
                let bytes = self.small(size)?;
                extension.absorb(kind, &bytes)?;
                continue;
            }
            return self.entry(&header, extension, size).map(Some);
        }
    }

    /// Reads data of the present entry, as stored; 0 bytes is its end.
    ///
    /// # Errors
    /// The stream's, and an archive that ends early.
    pub fn data(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = loop {
            match self.from.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(failed)?,
            }
        };
        if length == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= length as u64;
        Ok(length)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        self.from.read_exact(buffer).map_err(failed)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Failure> {
        let skipped = io::copy(&mut (&mut self.from).take(bytes), &mut io::sink());
        match skipped {
            Ok(count) if count == bytes => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(failed(error)),
        }
    }

    /// A header that adds up; none at the end mark, a block of zeros.
    fn header(&mut self) -> Result<Option<Header>, Failure> {
        let mut header = Header::new_old();
        self.exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum takes its own field (8 bytes at 148) as spaces.
        let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
        let own = header.as_bytes().get(148..156).unwrap_or_default();
        let sum = sum - own.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        match header.cksum() {
            Ok(wanted) if wanted == sum => Ok(Some(header)),
            _ => Err(Failure::archive("this is not a tar archive, or it is damaged")),
        }
    }

    /// The data of an extension record.
    fn small(&mut self, size: u64) -> Result<Vec<u8>, Failure> {
        if size > MAX_EXTENSION {
            let text = format!("an extension record of the archive is over {MAX_EXTENSION} bytes");
            return Err(Failure::archive(text));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.exact(&mut bytes)?;
        self.left = 0;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header,
        extension: Extension,
        stored: u64,
    ) -> Result<Entry, Failure> {
        let wrong = |error: io::Error| broken(header, &error.to_string());
        let id = |given: Option<u32>, header: io::Result<u64>| match given {
            Some(id) => Ok(id),
            None => header.and_then(|id| {
                u32::try_from(id).map_err(|_| io::Error::other("its owner is out of range"))
            }),
        };
        let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
        let (mtime_s, mtime_ns) = match extension.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(header.mtime().map_err(wrong)?).unwrap_or(0), 0),
        };
        let link = extension.link.or_else(|| header.link_name_bytes().map(Into::into));
        let kind = kind(header, &name)?;
        let mut entry = Entry {
            kind,
            path: name,
            link: link.unwrap_or_default(),
            mode: header.mode().map_err(wrong)? & 0o7777,
            uid: id(extension.uid, header.uid()).map_err(wrong)?,
            gid: id(extension.gid, header.gid()).map_err(wrong)?,
            mtime_s,
            mtime_ns,
            size: if kind == Kind::File { stored } else { 0 },
            segments: None,
            device: (device(header.device_major()), device(header.device_minor())),
        };
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return Err(broken(header, "its owner is out of range"));
        }
        if header.entry_type() == EntryType::GNUSparse {
            (entry.size, entry.segments) = self.old_map(header)?;
        } else if let Some(size) = extension.sparse_size {
            entry.size = size;
            entry.segments = Some(self.map()?);
        }
        self.check(&entry)?;
        Ok(entry)
    }

    /// The map of a sparse file in GNU tar's own format: in the header and in blocks behind it.
    fn old_map(&mut self, header: &Header) -> Result<(u64, Option<Vec<Segment>>), Failure> {
        let wrong = |error: io::Error| broken(header, &error.to_string());
        let gnu = header.as_gnu().ok_or_else(|| broken(header, "malformed sparse file"))?;
        let mut segments = Vec::new();
        let mut add = |offset: io::Result<u64>, length: io::Result<u64>| {
            segments.push(Segment { offset: offset?, length: length? });
            Ok::<_, io::Error>(segments.len() <= MAX_SEGMENTS)
        };
        for one in gnu.sparse.iter().filter(|one| !one.is_empty()) {
            add(one.offset(), one.length()).map_err(wrong)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.exact(block.as_mut_bytes())?;
            for one in block.sparse().iter().filter(|one| !one.is_empty()) {
                if !add(one.offset(), one.length()).map_err(wrong)? {
                    return Err(broken(header, "its sparse map is too long"));
                }
            }
            more = block.is_extended();
        }
        Ok((gnu.real_size().map_err(wrong)?, Some(segments)))
    }

    /// The map of a sparse file in pax format 1.0: numbers in front of the data.
    fn map(&mut self) -> Result<Vec<Segment>, Failure> {
        let mut block = Vec::new();
        let count = self.number(&mut block)?;
        if count > MAX_SEGMENTS as u64 {
            return Err(Failure::archive("the map of a sparse file is too long"));
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            let (offset, length) = (self.number(&mut block)?, self.number(&mut block)?);
            segments.push(Segment { offset, length });
        }
        Ok(segments)
    }

    /// A decimal number and the end of its line; `block` has the unread part of the present block,
    /// backwards.
    fn number(&mut self, block: &mut Vec<u8>) -> Result<u64, Failure> {
        let malformed = || Failure::archive("the map of a sparse file is malformed");
        let mut number = 0u64;
        for _ in 0..21 {
            if block.is_empty() {
                let rest = self.left.checked_sub(BLOCK).ok_or_else(malformed)?;
                block.resize(512, 0);
                self.exact(block)?;
                block.reverse();
                self.left = rest;
            }
            match block.pop() {
                Some(b'\n') => return Ok(number),
                Some(digit @ b'0'..=b'9') => {
                    let next = number.checked_mul(10);
                    let next = next.and_then(|n| n.checked_add(u64::from(digit - b'0')));
                    number = next.ok_or_else(malformed)?;
                }
                _ => return Err(malformed()),
            }
        }
        Err(malformed())
    }

    /// The map of a sparse file must fit its size and its data.
    fn check(&self, entry: &Entry) -> Result<(), Failure> {
        let Some(segments) = &entry.segments else { return Ok(()) };
        let mut end = 0u64;
        let rising = segments.iter().all(|one| {
            let begins = one.offset >= end;
            end = one.offset.saturating_add(one.length);
            begins
        });
        let fits = end <= entry.size && entry.size <= MAX_FILE_BYTES;
        if rising && fits && entry.kind == Kind::File && entry.data_bytes() == self.left {
            return Ok(());
        }
        let name = shown(&entry.path);
        Err(Failure::archive(format!("the map of the sparse file `{name}` does not fit it")))
    }
}

/// The stream's failure; also when it ends early.
fn failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Failure::stream("the archive ended before it was whole", error)
        }
        _ => Failure::stream("the archive broke off", error),
    }
}

fn broken(header: &Header, what: &str) -> Failure {
    Failure::archive(format!("cannot unpack `{}`: {what}", shown(&header.path_bytes())))
}

fn kind(header: &Header, name: &[u8]) -> Result<Kind, Failure> {
    Ok(match header.entry_type() {
        // Archives from before POSIX have no type for folders.
        EntryType::Regular if name.ends_with(b"/") => Kind::Folder,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Fifo => Kind::Pipe,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        _ => return Err(broken(header, "entries of this type are not taken")),
    })
}

#[cfg(test)]
mod tests;
