//! Reads tar archives that may be hostile.
//!
//! POSIX.1-2001 (pax) and GNU formats. Every entry's header is checked; names and attributes that
//! come in entries of their own are limited; a truncated archive is an error, never a shorter one.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::tree::{Content, Kind, Meta, Tree, TreeError};

/// Bytes of a header and unit of everything else.
const BLOCK: usize = 512;
/// Longest entry with names or attributes for the next one.
const EXTENSION_BYTES: u64 = 1 << 20;
/// Latest time ext4 can store: 34 bits of seconds.
const LATEST_S: i64 = (1 << 34) - (1 << 31) - 1;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It ends within an entry, or without its end mark.
    #[error("it is truncated")]
    Truncated,
    /// It contains nothing.
    #[error("it is empty")]
    Empty,
    /// A header does not add up.
    #[error("it is no tar archive, or damaged (entry {entry})")]
    BadHeader {
        /// Number of the entry, from 0.
        entry: u64,
    },
    /// Something that cannot be kept.
    #[error("entry `{name}` has {what}")]
    Unsupported {
        /// Its name.
        name: String,
        /// What it has.
        what: &'static str,
    },
    /// A name that cannot be taken.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The stream itself fails.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// What the next entry is told by entries before it.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
    sparse: bool,
}

/// One entry, its names decoded.
#[derive(Debug)]
pub struct Entry {
    /// Number among the entries of the archive.
    pub index: u64,
    /// Path as written.
    pub path: String,
    /// What it is.
    pub what: What,
    /// Owner, mode, time.
    pub meta: Meta,
    /// Extended attributes that ext4 can keep.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// A node of its own; [`Kind::File`] with its length.
    Node(Kind),
    /// Another name for an earlier entry.
    HardLink(String),
}

/// Reads an archive entry by entry.
pub struct Reader<R> {
    inner: R,
    index: u64,
    left: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, index: 0, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end mark.
    ///
    /// # Errors
    /// A damaged, truncated, or hostile archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let index = self.index;
            self.index += 1;
            let bad = |_| TarError::BadHeader { entry: index };
            let mut size = header.entry_size().map_err(bad)?;
            let kind = header.entry_type();
            if let Some(real) = extension.size.filter(|_| !is_extension(kind)) {
                size = real;
            }
            if !has_content(kind) {
                size = 0;
            }
            self.left = size;
            self.padding = size.wrapping_neg() % BLOCK as u64;
            match kind {
                EntryType::XHeader => {
                    let text = self.small(size, index)?;
                    pax(&text, &mut extension).ok_or(TarError::BadHeader { entry: index })?;
                }
                EntryType::GNULongName => extension.path = Some(self.small(size, index)?),
                EntryType::GNULongLink => extension.link = Some(self.small(size, index)?),
                // What holds for all entries is nothing we need: comments, times of the archive.
                EntryType::XGlobalHeader => {}
                _ => return self.entry(&header, kind, extension, index, size).map(Some),
            }
        }
    }

    /// Bytes of the entry last returned that are not read yet.
    pub fn content(&mut self) -> impl Read + '_ {
        Body { reader: self }
    }

    /// Passes over what is left of an entry.
    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let passed = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink());
        match passed.map_err(TarError::Read)? {
            passed if passed == rest => Ok(()),
            _ => Err(TarError::Truncated),
        }
    }

    /// The next header with a good checksum; `None` at the end mark, a block of zeros.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let count = read_full(&mut self.inner, block).map_err(TarError::Read)?;
        if count < BLOCK {
            return Err(if self.index == 0 && count == 0 {
                TarError::Empty
            } else if self.index == 0 {
                TarError::BadHeader { entry: 0 }
            } else {
                TarError::Truncated
            });
        }
        if block.iter().all(|byte| *byte == 0) {
            return if self.index == 0 { Err(TarError::Empty) } else { Ok(None) };
        }
        // POSIX ustar: the sum of all bytes with the field itself taken as spaces.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(TarError::BadHeader { entry: self.index });
        }
        Ok(Some(header))
    }

    fn small(&mut self, size: u64, index: u64) -> Result<Vec<u8>, TarError> {
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

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        extension: Extension,
        index: u64,
        size: u64,
    ) -> Result<Entry, TarError> {
        let bad = || TarError::BadHeader { entry: index };
        let path = extension.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let path = text(path)?;
        let unsupported = |what| TarError::Unsupported { name: path.clone(), what };
        if extension.sparse {
            return Err(unsupported("holes, which is not supported: pack it without --sparse"));
        }
        let target = || {
            let link = header.link_name_bytes().map(std::borrow::Cow::into_owned);
            extension.link.clone().or(link).ok_or_else(bad).and_then(text)
        };
        let device = || {
            let number = |part: io::Result<Option<u32>>| part.ok().flatten().ok_or_else(bad);
            let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
            if major > 0xfff || minor > 0xf_ffff {
                return Err(unsupported("a device number that Linux does not have"));
            }
            Ok((major, minor))
        };
        let what = match kind {
            EntryType::Link => What::HardLink(target()?),
            EntryType::Symlink => {
                let target = target()?;
                if target.is_empty() || target.len() > 4095 || target.contains('\0') {
                    return Err(unsupported("a link target that Linux does not allow"));
                }
                What::Node(Kind::Symlink(target))
            }
            EntryType::Directory => What::Node(Kind::Folder(std::collections::BTreeMap::new())),
            EntryType::Char => {
                let (major, minor) = device()?;
                What::Node(Kind::Char { major, minor })
            }
            EntryType::Block => {
                let (major, minor) = device()?;
                What::Node(Kind::Block { major, minor })
            }
            EntryType::Fifo => What::Node(Kind::Fifo),
            // In the oldest format a folder is a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if path.ends_with('/') => {
                What::Node(Kind::Folder(std::collections::BTreeMap::new()))
            }
            EntryType::Regular | EntryType::Continuous => {
                What::Node(Kind::File(Content::Source { index, bytes: size }))
            }
            EntryType::GNUSparse => {
                return Err(unsupported("holes, which is not supported: pack it without --sparse"));
            }
            _ => return Err(unsupported("a type that is not supported")),
        };
        if path.starts_with('/') {
            return Err(TreeError::Escapes(path.chars().take(100).collect()).into());
        }
        let meta = meta(header, &extension).ok_or_else(bad)?;
        Ok(Entry { index, path, what, meta, xattrs: extension.xattrs })
    }
}

struct Body<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.reader.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.inner.read(&mut buffer[..want])?;
        self.reader.left -= count as u64;
        Ok(count)
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
    )
}

/// Links and devices have no content, whatever their size field says (POSIX pax, `typeflag`).
fn has_content(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// A name as text: without the zero byte that GNU puts at its end.
fn text(mut bytes: Vec<u8>) -> Result<String, TarError> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|error| TarError::Unsupported {
        name: String::from_utf8_lossy(error.as_bytes()).chars().take(100).collect(),
        what: "a name that is not UTF-8",
    })
}

fn meta(header: &Header, extension: &Extension) -> Option<Meta> {
    let id = |told: Option<u64>, field: io::Result<u64>| -> Option<u32> {
        u32::try_from(told.or(field.ok())?).ok()
    };
    let (mtime_s, mtime_ns) = match extension.mtime {
        Some(mtime) => mtime,
        None => (i64::try_from(header.mtime().unwrap_or_default()).unwrap_or(LATEST_S), 0),
    };
    Some(Meta {
        mode: u16::try_from(header.mode().ok()? & 0o7777).ok()?,
        uid: id(extension.uid, header.uid())?,
        gid: id(extension.gid, header.gid())?,
        mtime_s: mtime_s.clamp(0, LATEST_S),
        mtime_ns,
    })
}

/// Reads the records of a pax header: `<length> <key>=<value>\n`. `None` if they make no sense.
fn pax(mut text: &[u8], extension: &mut Extension) -> Option<()> {
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
        let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (std::str::from_utf8(&record[..equals]).ok()?, &record[equals + 1..]);
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            "path" => extension.path = Some(value.to_vec()),
            "linkpath" => extension.link = Some(value.to_vec()),
            "size" => extension.size = Some(number()?),
            "uid" => extension.uid = Some(number()?),
            "gid" => extension.gid = Some(number()?),
            "mtime" => extension.mtime = Some(time(std::str::from_utf8(value).ok()?)?),
            _ if key.starts_with("GNU.sparse.") => extension.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.").filter(|name| keeps(name)) {
                    extension.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        text = &text[length..];
    }
    Some(())
}

/// Whether an attribute is one that an image keeps. `system.` ones are ACLs in another encoding
/// than ext4's, and `security.selinux` belongs to the host that packed it.
fn keeps(name: &str) -> bool {
    let kept = ["user.", "trusted.", "security."].iter().any(|space| name.starts_with(space));
    kept && name != "security.selinux" && name.len() <= 255
}

/// Seconds with a fraction, possibly negative.
fn time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds, digits.parse().ok()?))
}

/// Adds an entry to a tree.
///
/// # Errors
/// A path the tree cannot take.
pub fn add(tree: &mut Tree, entry: Entry) -> Result<(), TarError> {
    match entry.what {
        What::HardLink(target) => tree.link(&entry.path, target.trim_start_matches('/'))?,
        What::Node(kind) => {
            let id = tree.put(&entry.path, kind, entry.meta)?;
            tree.set_xattrs(id, entry.xattrs.into_iter().collect())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::ROOT;
    use proptest::prelude::*;
    use tar::Builder;

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(1000);
        header.set_gid(3_000_000_000);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        header
    }

    fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut Builder<Vec<u8>>, path: &str, text: &str) {
        let mut header = header(EntryType::Regular, text.len() as u64);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }

    /// An entry whose path is written as it is, which the builder would refuse.
    fn raw(path: &[u8], kind: u8, size: u64) -> Vec<u8> {
        let mut header = header(EntryType::new(kind), size);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn tree(bytes: &[u8]) -> Result<Tree, TarError> {
        let (mut tree, mut reader) = (Tree::new(), Reader::new(bytes));
        while let Some(entry) = reader.next_entry()? {
            add(&mut tree, entry)?;
        }
        Ok(tree)
    }

    #[test]
    fn long_names_attributes_and_owners_are_kept() {
        let long = format!("{}/ü{}", "d".repeat(150), "f".repeat(200));
        let bytes = archive(|builder| {
            file(builder, &long, "long");
            let records = [
                ("path", "short/päth".as_bytes()),
                ("SCHILY.xattr.security.capability", b"\x01\0\0\x02".as_slice()),
                ("SCHILY.xattr.system.posix_acl_access", b"x"),
                ("SCHILY.xattr.security.selinux", b"x"),
                ("uid", b"70000"),
                ("mtime", b"1700000001.25"),
            ];
            builder.append_pax_extensions(records).unwrap();
            file(builder, "ignored", "pax");
            let mut device = header(EntryType::Char, 0);
            device.set_device_major(1).unwrap();
            device.set_device_minor(3).unwrap();
            builder.append_data(&mut device, "dev/null", &[][..]).unwrap();
            let mut same = header(EntryType::Link, 0);
            builder.append_link(&mut same, "hard", &long).unwrap();
        });
        let tree = tree(&bytes).unwrap();
        let first = tree.get(&long).unwrap();
        assert_eq!(tree.get("hard"), Some(first));
        let meta = Meta {
            mode: 0o4755,
            uid: 1000,
            gid: 3_000_000_000,
            mtime_s: 1_700_000_000,
            mtime_ns: 0,
        };
        assert_eq!(tree.node(first).meta, meta);
        let pax = tree.node(tree.get("short/päth").unwrap());
        assert_eq!(pax.xattrs.keys().collect::<Vec<_>>(), ["security.capability"]);
        let time = (pax.meta.uid, pax.meta.mtime_s, pax.meta.mtime_ns);
        assert_eq!(time, (70000, 1_700_000_001, 250_000_000));
        let null = tree.node(tree.get("dev/null").unwrap());
        assert_eq!(null.kind, Kind::Char { major: 1, minor: 3 });
        assert_eq!(tree.node(ROOT).meta.mode, 0o755);
    }

    #[test]
    fn hostile_entries_are_refused() {
        let cases: [(&[u8], u8, u64, &str); 9] = [
            (b"../x", b'0', 0, "leads out"),
            (b"/etc/passwd", b'0', 0, "leads out"),
            (b"a/../../x", b'5', 0, "leads out"),
            (b"\xff\xfe", b'0', 0, "not UTF-8"),
            (b"sparse", b'S', 0, "holes"),
            (b"what", b'Z', 0, "type"),
            (b"names", b'L', 1 << 30, "damaged"),
            (b"pax", b'x', 1 << 30, "damaged"),
            (b"cut", b'0', 5000, "truncated"),
        ];
        for (path, kind, size, why) in cases {
            let error = tree(&raw(path, kind, size)).unwrap_err().to_string();
            assert!(error.contains(why), "{path:?}: {error}");
        }
    }

    #[test]
    fn a_truncated_archive_is_never_a_shorter_one() {
        let bytes = archive(|builder| {
            file(builder, "a", "some text");
            file(builder, &format!("{}x", "n/".repeat(150)), &"x".repeat(2000));
        });
        assert!(tree(&bytes).is_ok());
        let end_mark = bytes.len() - 1024;
        for length in 0..=end_mark {
            assert!(tree(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        assert!(matches!(tree(&[0; 1024]), Err(TarError::Empty)));
        assert!(matches!(tree(b""), Err(TarError::Empty)));
    }

    #[test]
    fn sizes_from_pax_headers_count() {
        let text = "x".repeat(1000);
        let mut bytes = archive(|builder| {
            builder.append_pax_extensions([("size", b"1000".as_slice())]).unwrap();
        });
        bytes.truncate(1024);
        bytes.extend(raw(b"big", b'0', 0));
        bytes.extend(text.as_bytes());
        bytes.extend([0; 24 + 1024]);
        let tree = tree(&bytes).unwrap();
        assert_eq!(tree.content_bytes(), 1000);
    }

    #[test]
    fn pax_records_that_make_no_sense_are_refused() {
        for text in ["5", "x y=z\n", "3 x=", "99 path=x\n", "0 =\n", "9 uid=abc\n", "7 path\n"] {
            assert_eq!(pax(text.as_bytes(), &mut Extension::default()), None, "{text}");
        }
        assert_eq!(time("-1.5"), Some((-1, 500_000_000)));
        assert_eq!(time("1.x"), None);
    }

    proptest! {
        #[test]
        fn no_change_makes_it_panic(changes in proptest::collection::vec(
            (0..6000_usize, any::<u8>()), 0..30), cut in 0..6000_usize) {
            let mut bytes = archive(|builder| {
                builder.append_pax_extensions([("mtime", b"1.5".as_slice())]).unwrap();
                file(builder, "a", "text");
                file(builder, &format!("{}x", "n/".repeat(150)), "more");
            });
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut.max(512));
            let _ = tree(&bytes);
        }
    }
}
