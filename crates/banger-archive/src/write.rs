//! Writes the descriptions of entries: ustar headers, and pax records for what they cannot hold.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::entry::{BLOCK, Entry, Kind};

/// Longest name in a ustar header, in bytes.
const MAX_NAME: usize = 100;
/// Largest number in a field of 12 and of 8 bytes.
const MAX_LONG: u64 = 0o777_7777_7777;
const MAX_ID: u32 = 0o777_7777;
const ZEROS: [u8; 1024] = [0; 1024];

/// Writes an archive, entry after entry.
pub struct Writer<W> {
    to: W,
    /// Bytes of data of the present entry so far, its sparse map included.
    data: u64,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(to: W) -> Self {
        Self { to, data: 0 }
    }

    /// Writes a description. [`Entry::data_bytes`] of data must follow by [`Writer::data`], then
    /// [`Writer::end_entry`].
    ///
    /// # Errors
    /// The receiver's.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let map = entry.segments.as_ref().map(|_| sparse_map(entry)).unwrap_or_default();
        let stored = entry.data_bytes().saturating_add(map.len() as u64);
        let records = records(entry, stored);
        if !records.is_empty() {
            let mut header = header(EntryType::XHeader, b"pax", records.len() as u64);
            header.set_cksum();
            self.to.write_all(header.as_bytes())?;
            self.to.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.to.write_all(main_header(entry, stored).as_bytes())?;
        self.to.write_all(&map)?;
        self.data = map.len() as u64;
        Ok(())
    }

    /// Writes data of the entry.
    ///
    /// # Errors
    /// The receiver's.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Ends the entry.
    ///
    /// # Errors
    /// The receiver's.
    pub fn end_entry(&mut self) -> io::Result<()> {
        self.pad(self.data)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The receiver's.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&ZEROS)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let rest = usize::try_from(length.next_multiple_of(BLOCK) - length).unwrap_or(0);
        self.to.write_all(ZEROS.get(..rest).unwrap_or_default())
    }
}

/// A ustar header with a name that is cut if it is too long.
fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    let name = name.get(..MAX_NAME).unwrap_or(name);
    if let Some(field) = header.as_mut_bytes().get_mut(..name.len()) {
        field.copy_from_slice(name);
    }
    header.set_size(if size > MAX_LONG { 0 } else { size });
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn main_header(entry: &Entry, stored: u64) -> Header {
    let kind = match entry.kind {
        Kind::File => EntryType::Regular,
        Kind::Folder => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::HardLink => EntryType::Link,
        Kind::Pipe => EntryType::Fifo,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
    };
    let mut header = header(kind, &entry.path, stored);
    let link = entry.link.get(..MAX_NAME).unwrap_or(&entry.link);
    // The field `linkname` of the ustar header.
    if let Some(field) = header.as_mut_bytes().get_mut(157..157 + link.len()) {
        field.copy_from_slice(link);
    }
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(entry.uid.min(MAX_ID).into());
    header.set_gid(entry.gid.min(MAX_ID).into());
    header.set_mtime(u64::try_from(entry.mtime_s).unwrap_or(0).min(MAX_LONG));
    if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        // A ustar header has both fields.
        let _ = header.set_device_major(entry.device.0);
        let _ = header.set_device_minor(entry.device.1);
    }
    header.set_cksum();
    header
}

/// The pax records of an entry; empty where the header says everything.
fn records(entry: &Entry, stored: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.segments.is_some() {
        record(&mut records, "GNU.sparse.major", b"1");
        record(&mut records, "GNU.sparse.minor", b"0");
        record(&mut records, "GNU.sparse.name", &entry.path);
        record(&mut records, "GNU.sparse.realsize", entry.size.to_string().as_bytes());
    } else if entry.path.len() > MAX_NAME {
        record(&mut records, "path", &entry.path);
    }
    if entry.link.len() > MAX_NAME {
        record(&mut records, "linkpath", &entry.link);
    }
    if stored > MAX_LONG {
        record(&mut records, "size", stored.to_string().as_bytes());
    }
    if entry.uid > MAX_ID {
        record(&mut records, "uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > MAX_ID {
        record(&mut records, "gid", entry.gid.to_string().as_bytes());
    }
    let plain = u64::try_from(entry.mtime_s).is_ok_and(|mtime_s| mtime_s <= MAX_LONG);
    if entry.mtime_ns != 0 || !plain {
        record(&mut records, "mtime", mtime(entry).as_bytes());
    }
    records
}

/// Decimal seconds; of a time before 1970 the fraction counts downwards.
fn mtime(entry: &Entry) -> String {
    match (entry.mtime_s, entry.mtime_ns) {
        (seconds, 0) => seconds.to_string(),
        (seconds, ns) if seconds >= 0 => format!("{seconds}.{ns:09}"),
        (seconds, ns) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - ns),
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {key}=").into_bytes());
    records.extend(value);
    records.push(b'\n');
}

/// The map in front of the data: decimal numbers, a line each, padded to a block.
fn sparse_map(entry: &Entry) -> Vec<u8> {
    let mut segments = entry.segments.clone().unwrap_or_default();
    // GNU tar marks a hole at the end by an empty stretch.
    if segments.last().is_none_or(|last| last.offset.saturating_add(last.length) < entry.size) {
        segments.push(crate::Segment { offset: entry.size, length: 0 });
    }
    let mut map = format!("{}\n", segments.len());
    for segment in segments {
        map.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}
