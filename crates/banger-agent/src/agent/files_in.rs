//! `PUT /files`: unpacks a tar stream beneath a folder. Nothing in the stream, and no symlink in
//! the tree, leads a write out of that folder; every file appears whole or not at all.
//!
//! Kept: content, modes, numeric owners, modification times, symlinks, hard links, named pipes.
//! Not kept: extended attributes. Refused: devices, sparse files.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, EntryType, Header, PaxExtensions};

use super::http::Refusal;
use crate::beneath::{Folder, Links, MAX_PATH, Owner, components, split_last, temporary_name};
use crate::fault::Fault;

/// Largest extension record (long name, pax header) that is read into memory, in bytes.
const MAX_EXTENSION: u64 = 64 * 1024;

/// Most folders whose times are set at the end.
const MAX_TIMED_FOLDERS: usize = 65_536;

/// Bytes copied at once.
const PIECE: usize = 128 * 1024;

/// Opens the folder to unpack into.
///
/// # Errors
/// 404 where there is none, 400 where it is something else.
pub fn open(path: &[u8]) -> Result<Folder, Refusal> {
    let shown = String::from_utf8_lossy(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => Ok(Folder::from_fd(fd)),
        Err(Errno::NOENT) => Err(Refusal::new(404, format!("the guest has no folder `{shown}`"))),
        Err(errno) => Err(Refusal::bad(format!("cannot open folder `{shown}`: {errno}"))),
    }
}

/// Unpacks the archive `from` beneath `folder`. What was unpacked before an error stays.
///
/// # Errors
/// 400 for a broken or hostile archive, 507 for a full disk, 500 for other trouble; the message
/// names the entry.
pub fn unpack(folder: &Folder, from: impl Read) -> Result<(), Refusal> {
    let mut unpacker = Unpacker { folder, parent: None, timed: Vec::new() };
    let mut archive = Archive::new(from);
    let mut extension = Extension::default();
    // Raw: the reader of extension records that comes with the archive has no limit.
    let entries = archive.entries().map_err(|error| refuse("archive", &error))?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(|error| refuse("archive", &error))?;
        let header = entry.header().clone();
        if extension.apply_entry(&header, &mut entry)? {
            continue;
        }
        let item = Item::new(&header, std::mem::take(&mut extension))?;
        unpacker.place(&item, &mut entry).map_err(|error| refuse(&item.shown(), &error))?;
    }
    unpacker.set_folder_times();
    Ok(())
}

fn refuse(what: &str, error: &io::Error) -> Refusal {
    let status = match error.kind() {
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => 409,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => 507,
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Other => 400,
        io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::DirectoryNotEmpty => 409,
        _ => 500,
    };
    Refusal::new(status, format!("cannot unpack `{what}`: {error}"))
}

/// What the records before an entry say about it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime_s: Option<i64>,
    size: Option<u64>,
}

impl Extension {
    /// Takes an extension record in; false for an entry proper.
    fn apply_entry(&mut self, header: &Header, data: &mut impl Read) -> Result<bool, Refusal> {
        let kind = header.entry_type();
        let is_extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if !is_extension {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        data.take(MAX_EXTENSION + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| refuse("archive", &error))?;
        if bytes.len() as u64 > MAX_EXTENSION {
            return Err(Refusal::bad(format!("an extension record is over {MAX_EXTENSION} bytes")));
        }
        if kind.is_pax_local_extensions() {
            self.apply_pax(&bytes)?;
        } else if !kind.is_pax_global_extensions() {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            bytes.truncate(end);
            let slot = if kind.is_gnu_longname() { &mut self.name } else { &mut self.link };
            *slot = Some(bytes);
        }
        Ok(true)
    }

    fn apply_pax(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let broken = || Refusal::bad("malformed pax record");
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| broken())?;
            let text = || String::from_utf8_lossy(record.value_bytes()).into_owned();
            match record.key_bytes() {
                b"path" => self.name = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                b"uid" => self.uid = Some(text().parse().map_err(|_| broken())?),
                b"gid" => self.gid = Some(text().parse().map_err(|_| broken())?),
                b"size" => self.size = Some(text().parse().map_err(|_| broken())?),
                b"mtime" => {
                    let text = text();
                    let whole = text.split('.').next().unwrap_or_default();
                    self.mtime_s = Some(whole.parse().map_err(|_| broken())?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// One entry, understood.
struct Item {
    kind: EntryType,
    /// Relative path, checked.
    path: Vec<u8>,
    link: Vec<u8>,
    owner: Owner,
    mode: u32,
    mtime_s: i64,
    size: u64,
}

impl Item {
    fn new(header: &Header, extension: Extension) -> Result<Self, Refusal> {
        let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let parts = components(&name).map_err(|fault| Refusal::bad(fault.chain()))?;
        let path = parts.join(&b'/');
        let wrong = |error: io::Error| refuse(&String::from_utf8_lossy(&path), &error);
        let size = header.entry_size().map_err(wrong)?;
        if extension.size.is_some_and(|wanted| wanted != size) {
            // The two disagree only beyond 8 GiB, where writers differ in what they mean.
            return Err(wrong(io::Error::other("a file this large needs a GNU archive")));
        }
        let id = |given: Option<u32>, header: io::Result<u64>| match given {
            Some(id) => Ok(id),
            None => header.and_then(|id| {
                u32::try_from(id).map_err(|_| io::Error::other("owner out of range"))
            }),
        };
        let owner = Owner {
            uid: id(extension.uid, header.uid()).map_err(wrong)?,
            gid: id(extension.gid, header.gid()).map_err(wrong)?,
        };
        if owner.uid == u32::MAX || owner.gid == u32::MAX {
            return Err(wrong(io::Error::other("owner out of range")));
        }
        let mtime_s = match extension.mtime_s {
            Some(mtime_s) => mtime_s,
            None => i64::try_from(header.mtime().map_err(wrong)?).unwrap_or(0),
        };
        let link = extension.link.or_else(|| header.link_name_bytes().map(Into::into));
        Ok(Self {
            kind: header.entry_type(),
            link: link.unwrap_or_default(),
            owner,
            mode: header.mode().map_err(wrong)? & 0o7777,
            mtime_s,
            size,
            path,
        })
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime_s, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

struct Unpacker<'a> {
    folder: &'a Folder,
    /// The folder of the last entry: archives come folder by folder.
    parent: Option<(Vec<u8>, Folder)>,
    timed: Vec<(Vec<u8>, Timestamps)>,
}

impl Unpacker<'_> {
    fn place(&mut self, item: &Item, data: &mut impl Read) -> io::Result<()> {
        // The top folder is the caller's: it stays as it is.
        let Some((parent, name)) = split_last(&item.path) else { return Ok(()) };
        if self.parent.as_ref().is_none_or(|(path, _)| path != parent) {
            let opened = self.folder.make_folders(parent, Owner::ROOT, 0o755);
            self.parent = Some((parent.to_vec(), opened.map_err(into_io)?));
        }
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        match item.kind {
            EntryType::Regular | EntryType::Continuous => put_file(parent, name, item, data),
            EntryType::Directory => {
                put_folder(parent, name, item)?;
                if self.timed.len() < MAX_TIMED_FOLDERS {
                    self.timed.push((item.path.clone(), item.times()));
                }
                Ok(())
            }
            EntryType::Symlink => put_symlink(parent, name, item),
            EntryType::Link => put_link(self.folder, parent, name, item),
            EntryType::Fifo => put_pipe(parent, name, item),
            _ => Err(io::Error::other("entries of this type are not taken")),
        }
    }

    /// Last, because every file written into a folder changes its time.
    fn set_folder_times(&self) {
        for (path, times) in self.timed.iter().rev() {
            let Some((parent, name)) = split_last(path) else { continue };
            // A folder that has been replaced meanwhile keeps its own time.
            if let Ok(parent) = self.folder.folder(parent, Links::Refuse) {
                let _ = fs::utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW);
            }
        }
    }
}

fn into_io(fault: Fault) -> io::Error {
    let kind = match fault.io() {
        // A symlink in the way; the kind that std has for it is not stable.
        Some(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            io::ErrorKind::NotADirectory
        }
        Some(error) => error.kind(),
        None => io::ErrorKind::InvalidInput,
    };
    io::Error::new(kind, fault.chain())
}

fn put_file(parent: &Folder, name: &[u8], item: &Item, data: &mut impl Read) -> io::Result<()> {
    let (temporary, file) = parent.temporary(item.owner)?;
    let mut file = File::from(file);
    let written = copy(data, &mut file, item.size).and_then(|()| {
        fs::fchmod(&file, Mode::from_raw_mode(item.mode))?;
        Ok(fs::futimens(&file, &item.times())?)
    });
    parent.finish(written, &temporary, name)
}

/// Copies exactly `size` bytes: an archive that breaks off reads like one that ends.
fn copy(from: &mut impl Read, to: &mut impl io::Write, size: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut copied = 0;
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            let is_whole = copied == size;
            return if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        to.write_all(piece.get(..length).unwrap_or_default())?;
        copied += length as u64;
    }
}

fn put_folder(parent: &Folder, name: &[u8], item: &Item) -> io::Result<()> {
    match fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) if parent.kind_of(name) == Some(FileType::Directory) => {}
        Err(Errno::EXIST) => return Err(Errno::NOTDIR.into()),
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let handle = parent.open_beneath(name, flags, Links::Refuse)?;
    let (uid, gid) = ids(item.owner);
    fs::fchown(&handle, uid, gid)?;
    Ok(fs::fchmod(&handle, Mode::from_raw_mode(item.mode))?)
}

fn ids(owner: Owner) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

fn put_symlink(parent: &Folder, name: &[u8], item: &Item) -> io::Result<()> {
    if item.link.is_empty() || item.link.len() > MAX_PATH || item.link.contains(&0) {
        return Err(io::Error::other("malformed target of a symlink"));
    }
    // Any target: it is the reader who must not follow.
    let temporary = temporary_name();
    fs::symlinkat(item.link.as_slice(), parent, temporary.as_slice())?;
    let (uid, gid) = ids(item.owner);
    let written = fs::chownat(parent, temporary.as_slice(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|()| {
            let times = item.times();
            fs::utimensat(parent, temporary.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW)
        });
    parent.finish(written.map_err(Into::into), &temporary, name)
}

fn put_pipe(parent: &Folder, name: &[u8], item: &Item) -> io::Result<()> {
    let temporary = temporary_name();
    let mode = Mode::from_raw_mode(item.mode);
    fs::mknodat(parent, temporary.as_slice(), FileType::Fifo, mode, 0)?;
    let (uid, gid) = ids(item.owner);
    let written = fs::chownat(parent, temporary.as_slice(), uid, gid, AtFlags::SYMLINK_NOFOLLOW);
    parent.finish(written.map_err(Into::into), &temporary, name)
}

/// A further name for a file beneath the same folder; the target is resolved like every path.
fn put_link(folder: &Folder, parent: &Folder, name: &[u8], item: &Item) -> io::Result<()> {
    let target = components(&item.link).map_err(into_io)?.join(&b'/');
    let (target_parent, target_name) =
        split_last(&target).ok_or_else(|| io::Error::other("malformed target of a link"))?;
    let target_parent = folder.folder(target_parent, Links::Refuse)?;
    let temporary = temporary_name();
    fs::linkat(&target_parent, target_name, parent, temporary.as_slice(), AtFlags::empty())?;
    parent.finish(Ok(()), &temporary, name)?;
    // Renaming one name of a file over another of the same does nothing: the first one stays.
    match fs::unlinkat(parent, temporary.as_slice(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
