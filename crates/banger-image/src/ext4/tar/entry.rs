//! Builds entries from headers and extended headers.

use std::io::{self, Read};

use super::header::{BLOCK, Field, Header};
use super::pax::Extension;
use super::sparse::{self, EXTENTS_MAX, Map};
use super::warnings::Warning;
use super::{Body, Reader, TarError, kind, read_full};
use crate::ext4::tree::{Content, Extent, Kind, Meta};

/// Times that ext4 can store: 34 bits of seconds from 1901.
const EARLIEST_S: i64 = -(1 << 31);
const LATEST_S: i64 = (1 << 34) - (1 << 31) - 1;

/// An entry with decoded names.
#[derive(Debug)]
pub struct Entry {
    /// Number of the entry in the archive, from 0.
    pub index: u64,
    /// Path without leading slashes.
    pub path: Vec<u8>,
    /// Type and, for a file, its contents.
    pub kind: EntryKind,
    /// Owner, mode, time.
    pub meta: Meta,
    /// Extended attributes that ext4 can store.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// The path as text; bytes that are not UTF-8 are replaced.
    pub fn text_path(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }
}

/// Type of an entry.
#[derive(Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A new node; [`Kind::File`] with its length.
    Node(Kind),
    /// Another name for another entry.
    HardLink(Vec<u8>),
}

impl<R: Read> Reader<R> {
    /// Builds an entry from its header and the extended headers before it.
    pub(super) fn entry(
        &mut self,
        header: &Header,
        mut extension: Extension,
        index: u64,
    ) -> Result<Entry, TarError> {
        let bad = || TarError::BadHeader { entry: index };
        let sparse_name = extension.sparse.name.take();
        let raw_path = sparse_name.or(extension.path.take()).unwrap_or_else(|| header.name());
        let name = printable(&raw_path);
        if header.kind() == kind::CONTINUED || extension.continued {
            return Err(TarError::MultiVolume { name });
        }
        let path = self.relative(&raw_path);
        let link = extension.link.take().unwrap_or_else(|| header.link());
        let entry_kind = match header.kind() {
            kind::HARD_LINK => EntryKind::HardLink(self.relative(&link)),
            kind::SYMLINK => EntryKind::Node(symlink(link, &name)?),
            kind::FOLDER | kind::DUMP_FOLDER => EntryKind::Node(folder()),
            kind::CHAR => {
                let (major, minor) = device(header, index, &name)?;
                EntryKind::Node(Kind::Char { major, minor })
            }
            kind::BLOCK => {
                let (major, minor) = device(header, index, &name)?;
                EntryKind::Node(Kind::Block { major, minor })
            }
            kind::FIFO => EntryKind::Node(Kind::Fifo),
            // In the oldest format a folder is a file whose name ends in a slash.
            kind::OLD_FILE | kind::FILE | kind::CONTIGUOUS if raw_path.ends_with(b"/") => {
                EntryKind::Node(folder())
            }
            other => {
                let known = [kind::OLD_FILE, kind::FILE, kind::CONTIGUOUS, kind::SPARSE];
                if !known.contains(&other) {
                    self.warnings.add(Warning::UnknownType, &path);
                }
                EntryKind::Node(Kind::File(self.file(header, &extension, index, &name)?))
            }
        };
        let mut meta = meta(header, &extension).ok_or_else(bad)?;
        if matches!(entry_kind, EntryKind::Node(Kind::Symlink(_))) {
            // symlink(7): the mode of a link is not used and is always 0777.
            meta.mode = 0o777;
        }
        Ok(Entry { index, path, kind: entry_kind, meta, xattrs: extension.xattrs })
    }

    /// A path without leading slashes.
    fn relative(&mut self, path: &[u8]) -> Vec<u8> {
        let slashes = path.iter().take_while(|byte| **byte == b'/').count();
        if slashes > 0 && path.len() > slashes {
            self.warnings.add(Warning::AbsoluteName, path);
        }
        path[slashes..].to_vec()
    }

    /// The content of a file; reads the map of a sparse file.
    fn file(
        &mut self,
        header: &Header,
        extension: &Extension,
        index: u64,
        name: &str,
    ) -> Result<Content, TarError> {
        let bad = || TarError::BadHeader { entry: index };
        let sparse = &extension.sparse;
        let (extents, bytes) = if header.kind() == kind::SPARSE {
            let bytes = header.number(Field::RealSize).and_then(|size| u64::try_from(size).ok());
            (self.old_extents(header, index)?, bytes)
        } else if sparse.major == Some(1) && sparse.minor.unwrap_or_default() == 0 {
            let before = self.left;
            let mut body = Body { inner: &mut self.inner, left: &mut self.left };
            let (extents, read_bytes) =
                sparse::read_map(&mut body).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => bad(),
                    io::ErrorKind::UnexpectedEof if before > 0 => TarError::Truncated,
                    _ => TarError::Read(error),
                })?;
            debug_assert_eq!(self.left + read_bytes, before);
            (extents, sparse.bytes)
        } else if sparse.major.unwrap_or_default() > 0 {
            let feature = "a sparse format that is not supported: pack it without --sparse";
            return Err(TarError::Unsupported { name: name.to_owned(), feature });
        } else if sparse.is_some() {
            (sparse.map.clone(), sparse.bytes)
        } else {
            return Ok(Content::Source { index, bytes: self.left });
        };
        let map = bytes.and_then(|bytes| Map::new(extents, bytes, self.left)).ok_or_else(bad)?;
        let data = map.blocks().into_boxed_slice();
        let content = Content::Sparse { index, bytes: map.bytes, data };
        self.map = Some(map);
        Ok(content)
    }

    /// Extents of the old GNU format, from the header and its extension blocks.
    fn old_extents(&mut self, header: &Header, index: u64) -> Result<Vec<Extent>, TarError> {
        let bad = || TarError::BadHeader { entry: index };
        let mut extents = Vec::new();
        let mut take = |block: &Header, is_first| -> Result<bool, TarError> {
            let (found, more) = block.extents(is_first);
            for (offset, bytes) in found {
                let offset = u64::try_from(offset).map_err(|_| bad())?;
                let bytes = u64::try_from(bytes).map_err(|_| bad())?;
                extents.push(Extent { offset, bytes });
            }
            if extents.len() > EXTENTS_MAX { Err(bad()) } else { Ok(more) }
        };
        let mut more = take(header, true)?;
        while more {
            let mut block = Header([0; BLOCK]);
            let count = read_full(&mut self.inner, &mut block.0).map_err(TarError::Read)?;
            if count < BLOCK {
                return Err(TarError::Truncated);
            }
            more = take(&block, false)?;
        }
        Ok(extents)
    }
}

fn folder() -> Kind {
    Kind::Folder(std::collections::BTreeMap::new())
}

/// A name for a message: at most 100 characters.
pub(super) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(100).collect()
}

fn symlink(target: Vec<u8>, name: &str) -> Result<Kind, TarError> {
    if target.is_empty() || target.len() > 4095 || target.contains(&0) {
        let feature = "a link target that Linux does not allow";
        return Err(TarError::Unsupported { name: name.to_owned(), feature });
    }
    Ok(Kind::Symlink(target))
}

fn device(header: &Header, index: u64, name: &str) -> Result<(u32, u32), TarError> {
    let number = |field| {
        let number = header.number(field).and_then(|number| u32::try_from(number).ok());
        number.ok_or(TarError::BadHeader { entry: index })
    };
    let (major, minor) = (number(Field::Major)?, number(Field::Minor)?);
    if major > 0xfff || minor > 0xf_ffff {
        let feature = "a device number that Linux does not have";
        return Err(TarError::Unsupported { name: name.to_owned(), feature });
    }
    Ok((major, minor))
}

fn meta(header: &Header, extension: &Extension) -> Option<Meta> {
    let id = |extended: Option<i64>, field| -> Option<u32> {
        let id = extended.or_else(|| header.number(field))?;
        // Small negative numbers are those of `nobody` on systems with signed ids.
        u32::try_from(id).ok().or_else(|| i32::try_from(id).ok().map(i32::cast_unsigned))
    };
    let (mtime_s, mtime_ns) = match extension.mtime {
        Some(mtime) => mtime,
        None => (header.number(Field::Mtime).unwrap_or_default(), 0),
    };
    Some(Meta {
        mode: u16::try_from(header.number(Field::Mode)? & 0o7777).ok()?,
        uid: id(extension.uid, Field::Uid)?,
        gid: id(extension.gid, Field::Gid)?,
        mtime_s: mtime_s.clamp(EARLIEST_S, LATEST_S),
        mtime_ns,
    })
}
