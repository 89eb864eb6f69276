//! Files of a container image: in a folder, or in a tar archive without unpacking it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use super::OciError;
use super::manifest::{DOCUMENT_BYTES, Digest};
use crate::ext4::tar::{self, EntryKind};
use crate::ext4::{Content, Kind};
use crate::fetch::{self, Compression, Counted, FetchError, Inflate, PathContext, Progress};

/// Maximum number of entries of an archive with an image: a file for each layer, and a few more.
const MAX_ENTRIES: usize = 20_000;
/// Maximum number of links followed to a file in an archive.
const MAX_LINKS: usize = 8;

/// A part of a file: one file of an image.
#[derive(Debug, Clone)]
pub struct Blob {
    file: Arc<File>,
    offset: u64,
    /// Name in the image.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Device, inode, length and time of the file when it was opened.
    seen: (u64, u64, u64, i64, i64),
}

fn seen(file: &File) -> io::Result<(u64, u64, u64, i64, i64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

impl Blob {
    /// Whether its file is unchanged since it was opened, according to its times.
    pub fn unchanged(&self) -> bool {
        seen(&self.file).is_ok_and(|now| now == self.seen)
    }

    fn reader(&self) -> Section {
        Section { file: self.file.clone(), at: self.offset, end: self.offset + self.bytes }
    }

    /// Reads a document, and checks its digest if there is one.
    ///
    /// # Errors
    /// Too large; another content than the digest's; read(2).
    pub fn document(&self, digest: Option<&Digest>) -> Result<Vec<u8>, OciError> {
        if self.bytes > DOCUMENT_BYTES {
            return Err(OciError::DocumentTooLarge { name: self.name.clone() });
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).at("read", Path::new(&self.name))?;
        if let Some(digest) = digest {
            self.compare(digest, Sha256::digest(&bytes).as_slice())?;
        }
        Ok(bytes)
    }

    /// Compares a digest with the one that the image names.
    ///
    /// # Errors
    /// [`OciError::DigestMismatch`].
    pub fn compare(&self, expected: &Digest, found: &[u8]) -> Result<(), OciError> {
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        if found == expected.hex() {
            return Ok(());
        }
        let (name, expected) = (self.name.clone(), expected.hex().to_owned());
        Err(OciError::DigestMismatch { name, expected })
    }

    /// Reads the content: gzip, zstd, or plain.
    ///
    /// # Errors
    /// Another compression; read(2).
    pub fn unpack<'a>(
        &self,
        hashing: Hashes,
        progress: &'a dyn Progress,
    ) -> Result<Unpacked<'a>, OciError> {
        let path = Path::new(&self.name);
        let mut start = [0; 512];
        let count = fetch::read_full(&mut self.reader(), &mut start).at("read", path)?;
        let compression = Compression::of_file(&start[..count]);
        if !matches!(compression, Compression::Plain | Compression::Gzip | Compression::Zstd) {
            let what = format!("`{}`, a layer compressed as {compression:?}", self.name);
            return Err(OciError::Unsupported { what });
        }
        let hash = (hashing == Hashes::Stored).then(Sha256::new);
        let stored = Rc::new(RefCell::new(Stored { hash, bytes: 0 }));
        let counted = Counted::new(self.reader(), Some(self.bytes), progress);
        let packed = Hashing { inner: counted, stored: stored.clone() };
        let stream = Inflate::new(compression, packed).at("read", path)?;
        Ok(Unpacked { stream, stored, rest: self.reader() })
    }
}

/// Reads a part of a file.
#[derive(Debug)]
pub struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..want], self.at)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.at += count as u64;
                Ok(count)
            }
        }
    }
}

/// What was read of a stored file.
struct Stored {
    hash: Option<Sha256>,
    bytes: u64,
}

/// What a reader hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashes {
    /// The file as it is stored.
    Stored,
    /// Nothing.
    None,
}

/// A reader with the hash of what was read.
struct Hashing<R> {
    inner: R,
    stored: Rc<RefCell<Stored>>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut stored = self.stored.borrow_mut();
        if let Some(hash) = &mut stored.hash {
            hash.update(&buffer[..count]);
        }
        stored.bytes += count as u64;
        Ok(count)
    }
}

type Packed<'a> = Hashing<Counted<'a, Section>>;

/// The decompressed content of a [`Blob`].
pub struct Unpacked<'a> {
    stream: Inflate<Packed<'a>>,
    stored: Rc<RefCell<Stored>>,
    rest: Section,
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Unpacked<'_> {
    /// SHA-256 of the whole file as it is stored, of a reader that hashes it; reads what follows
    /// the compressed content.
    ///
    /// # Errors
    /// read(2).
    pub fn stored_hash(mut self) -> io::Result<Vec<u8>> {
        let (mut hash, read) = {
            let stored = self.stored.borrow();
            (stored.hash.clone().unwrap_or_default(), stored.bytes)
        };
        self.rest.at += read;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.rest.read(&mut buffer)? {
                0 => return Ok(hash.finalize().to_vec()),
                count => hash.update(&buffer[..count]),
            }
        }
    }
}

/// The files of an image by name.
pub enum Files {
    /// In a folder.
    Folder(PathBuf),
    /// In a tar archive.
    Archive(Index),
}

impl Files {
    /// A file.
    ///
    /// # Errors
    /// [`OciError::Missing`]; open(2).
    pub fn open(&self, name: &str) -> Result<Blob, OciError> {
        match self {
            Self::Folder(folder) => open_in(folder, name),
            Self::Archive(index) => index.open(name),
        }
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Archive(index) => index.find(name).is_some(),
        }
    }
}

/// Opens a file below a folder; links do not lead out.
fn open_in(folder: &Path, name: &str) -> Result<Blob, OciError> {
    let path = folder.join(name);
    let top = File::open(folder).at("open", folder)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&top, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Err(OciError::Missing { name: name.to_owned() }),
        Err(error) => return Err(FetchError::io("open", &path, error.into()).into()),
    };
    let meta = file.metadata().at("look at", &path)?;
    if !meta.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(FetchError::io("read", &path, error).into());
    }
    let seen = seen(&file).at("look at", &path)?;
    let (file, name) = (Arc::new(file), path.display().to_string());
    Ok(Blob { file, offset: 0, name, bytes: meta.len(), seen })
}

/// Where the files of a tar archive are.
#[derive(Debug)]
pub struct Index {
    file: Arc<File>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug, Clone)]
enum Place {
    At {
        offset: u64,
        bytes: u64,
    },
    /// `docker save` once linked equal layers.
    Link(String),
}

/// A reader that knows its position.
struct Position<'a, R> {
    inner: R,
    at: &'a Cell<u64>,
}

impl<R: Read> Read for Position<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at.set(self.at.get() + count as u64);
        Ok(count)
    }
}

impl Index {
    /// Reads the headers of an uncompressed archive.
    ///
    /// # Errors
    /// A damaged archive; too many entries; read(2).
    pub fn of(file: File, progress: &dyn Progress) -> Result<Self, crate::ext4::Ext4Error> {
        let file = Arc::new(file);
        let bytes = file.metadata().at("look at", Path::new("the archive"))?.len();
        let at = Cell::new(0);
        let whole = Section { file: file.clone(), at: 0, end: bytes };
        let inner = Counted::new(whole, Some(bytes), progress);
        let mut reader = tar::Reader::new(Position { inner, at: &at });
        let mut places = BTreeMap::new();
        while let Some(entry) = reader.next_entry()? {
            let place = match &entry.kind {
                EntryKind::Node(Kind::File(Content::Source { bytes, .. })) => {
                    Place::At { offset: at.get(), bytes: *bytes }
                }
                EntryKind::Node(Kind::Symlink(target)) => {
                    let folder = entry.path.rsplitn(2, |byte| *byte == b'/').nth(1);
                    Place::Link(plain(&[folder.unwrap_or_default(), b"/", target].concat()))
                }
                EntryKind::HardLink(target) => Place::Link(plain(target)),
                EntryKind::Node(_) => continue,
            };
            places.insert(plain(&entry.path), place);
            if places.len() > MAX_ENTRIES {
                return Err(crate::ext4::TreeError::TooMany("files for a container image").into());
            }
        }
        Ok(Self { file, places })
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = plain(name.as_bytes());
        for _ in 0..MAX_LINKS {
            match self.places.get(&name)? {
                Place::At { offset, bytes } => return Some((*offset, *bytes)),
                Place::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    fn open(&self, name: &str) -> Result<Blob, OciError> {
        let (offset, bytes) =
            self.find(name).ok_or_else(|| OciError::Missing { name: banger_api::excerpt(name) })?;
        let seen = seen(&self.file).at("look at", Path::new(name))?;
        Ok(Blob { file: self.file.clone(), offset, name: name.to_owned(), bytes, seen })
    }
}

/// A path within the archive without `.` and `..`, which stop at its root.
fn plain(path: &[u8]) -> String {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    String::from_utf8_lossy(&parts.join(&b'/')).into_owned()
}
