//! Packs a file or a folder, without following any symlink below it.
//!
//! Kept: content, holes, modes, numeric owners, modification times, symlinks, hard links, named
//! pipes; devices where asked for. Not kept: extended attributes. Sockets are left out, and of
//! /proc, /sys and their kin only the empty folder is packed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::{Folder, Links, MAX_DEPTH, split_last};
use crate::entry::{Entry, Kind, MAX_SEGMENTS, Segment};
use crate::failure::{Failure, shown};
use crate::write::Writer;

/// File systems that only look like files: proc, sysfs, cgroup2, devpts, debugfs, tracefs,
/// securityfs, bpf (`linux/magic.h`).
const PSEUDO: [u64; 8] =
    [0x9fa0, 0x6265_6572, 0x6367_7270, 0x1cd1, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0xcafe_4a11];

/// Most files with several names that are remembered; a further one is packed once for each name.
const MAX_LINKED: usize = 65_536;

/// Bytes copied at once.
const PIECE: usize = 256 * 1024;

/// Whether devices are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// As entries of their own.
    Pack,
    /// Left out.
    LeaveOut,
}

/// What has been packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries.
    pub entries: u64,
    /// Bytes of content, without holes.
    pub bytes: u64,
    /// Sockets and devices that were left out.
    pub left_out: u64,
}

/// The names of the file that is packed.
#[derive(Debug, Clone, Copy)]
pub struct Top<'a> {
    /// Name of the top entry. A folder called `.` comes as the entry `./` and its content.
    pub name: &'a [u8],
    /// Path, for messages.
    pub path: &'a [u8],
}

impl Top<'_> {
    /// Names a file by its path, not by its name in the archive.
    fn cannot_read(self, path: &[u8]) -> String {
        let rest = path.strip_prefix(self.name).unwrap_or(path);
        format!("cannot read `{}`", shown(&[self.path, rest].concat()))
    }
}

/// Writes an archive of `source`, any open file.
///
/// # Errors
/// The receiver's, or a file that cannot be read. Files that vanish meanwhile are left out.
pub fn pack(
    source: &OwnedFd,
    top: Top<'_>,
    devices: Devices,
    to: impl Write,
) -> Result<Packed, Failure> {
    let buffer = vec![0; PIECE];
    let to = io::BufWriter::with_capacity(64 * 1024, to);
    let mut packer = Packer {
        writer: Writer::new(to),
        devices,
        linked: HashMap::new(),
        packed: Packed::default(),
        buffer,
        top,
    };
    let name = top.name;
    let opened = |errno: Errno| Failure::file(format!("cannot read `{}`", shown(top.path)), errno);
    let stat = fs::fstat(source).map_err(opened)?;
    // The handle may be only a name; /proc turns it into the file itself.
    let reopen = |flags| {
        let path = format!("/proc/self/fd/{}", source.as_raw_fd());
        fs::open(path, flags | OFlags::CLOEXEC, fs::Mode::empty()).map_err(opened)
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let folder = reopen(OFlags::PATH | OFlags::DIRECTORY)?;
            packer.tree(Folder::from_fd(folder), name, &stat)?;
        }
        FileType::RegularFile => {
            let file = File::from(reopen(OFlags::RDONLY)?);
            packer.file(file, name)?;
        }
        FileType::Symlink => {
            let target = fs::readlinkat(source, c"", Vec::new()).map_err(opened)?;
            packer.symlink(name, &stat, target.into_bytes())?;
        }
        kind => packer.special(kind, name, &stat)?,
    }
    packer.writer.finish().map_err(sent)?;
    Ok(packer.packed)
}

/// Writes an archive of some files beneath a folder, by path. Folders on the way to them have no
/// entries. Files that vanish meanwhile are left out.
///
/// # Errors
/// The receiver's, or a file that cannot be read.
pub fn pack_paths<'a>(
    folder: &Folder,
    paths: impl IntoIterator<Item = &'a [u8]>,
    top: Top<'_>,
    devices: Devices,
    to: impl Write,
) -> Result<Packed, Failure> {
    let to = io::BufWriter::with_capacity(64 * 1024, to);
    let mut packer = Packer {
        writer: Writer::new(to),
        devices,
        linked: HashMap::new(),
        packed: Packed::default(),
        buffer: vec![0; PIECE],
        top,
    };
    for path in paths {
        match packer.path(folder, path) {
            Err(failure) if failure.cause == crate::Cause::Missing => {}
            packed => packed?,
        }
    }
    packer.writer.finish().map_err(sent)?;
    Ok(packer.packed)
}

fn sent(error: io::Error) -> Failure {
    Failure::stream("the archive cannot be sent", error)
}

/// A folder that is being read.
struct Level {
    folder: Folder,
    names: Dir,
    path: Vec<u8>,
}

struct Packer<'a, W: Write> {
    writer: Writer<W>,
    devices: Devices,
    /// Path in the archive of each file with several names, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
    packed: Packed,
    buffer: Vec<u8>,
    top: Top<'a>,
}

impl<W: Write> Packer<'_, W> {
    fn tree(&mut self, folder: Folder, name: &[u8], stat: &Stat) -> Result<(), Failure> {
        let top = self.top;
        let mut levels: Vec<Level> = self.folder(folder, name, stat)?.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let Some(next) = level.names.read() else {
                levels.pop();
                continue;
            };
            let next = next.map_err(|errno| Failure::file(top.cannot_read(&level.path), errno))?;
            let name = next.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = [level.path.as_slice(), b"/", name].concat();
            let found = fs::statat(&level.folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let inner = match found {
                Ok(stat) => self.entry(&level.folder, name, &path, &stat),
                Err(errno) => Err(Failure::file(top.cannot_read(&path), errno)),
            };
            match inner {
                // It has vanished meanwhile.
                Err(failure) if failure.cause == crate::Cause::Missing => {}
                Err(failure) => return Err(failure),
                Ok(None) => {}
                Ok(Some(_)) if levels.len() > MAX_DEPTH => {
                    let text = format!("`{}` is more than {MAX_DEPTH} folders deep", shown(&path));
                    return Err(Failure::archive(text));
                }
                Ok(Some(level)) => levels.push(level),
            }
        }
        Ok(())
    }

    /// A file that is no folder, by its path beneath one.
    fn path(&mut self, folder: &Folder, path: &[u8]) -> Result<(), Failure> {
        let top = self.top;
        let shown = [top.name, b"/", path].concat();
        let failed = |error: io::Error| Failure::file(top.cannot_read(&shown), error);
        let Some((parent, name)) = split_last(path) else { return Ok(()) };
        let parent = match parent {
            b"" => folder.folder(b".", Links::Refuse),
            parent => folder.folder(parent, Links::Refuse),
        };
        let parent = parent.map_err(failed)?;
        let found = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = found.map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.entry(&parent, name, &shown, &stat)?;
        }
        Ok(())
    }

    fn folder(
        &mut self,
        folder: Folder,
        path: &[u8],
        stat: &Stat,
    ) -> Result<Option<Level>, Failure> {
        let top = self.top;
        let failed = |errno: Errno| Failure::file(top.cannot_read(path), errno);
        let names = if is_pseudo(&folder).map_err(failed)? {
            None
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let handle = folder.open_beneath(b".", flags, Links::Refuse);
            let handle = handle.map_err(|error| Failure::file(top.cannot_read(path), error))?;
            Some(Dir::new(handle).map_err(failed)?)
        };
        let mut entry = Entry::of(Kind::Folder, path, stat);
        entry.path.push(b'/');
        self.put(&entry)?;
        Ok(names.map(|names| Level { folder, names, path: path.to_vec() }))
    }

    fn entry(
        &mut self,
        folder: &Folder,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<Option<Level>, Failure> {
        let top = self.top;
        let failed = |error: io::Error| Failure::file(top.cannot_read(path), error);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = folder.folder(name, Links::Refuse).map_err(failed)?;
                return self.folder(inner, path, stat);
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = folder.open_beneath(name, flags, Links::Refuse).map_err(failed)?;
                self.file(File::from(file), path)?;
            }
            FileType::Symlink => {
                let target = fs::readlinkat(folder, name, Vec::new());
                let target = target.map_err(|errno| failed(errno.into()))?.into_bytes();
                self.symlink(path, stat, target)?;
            }
            kind => self.special(kind, path, stat)?,
        }
        Ok(None)
    }

    /// The size is promised before the content: what is written meanwhile is left out, what is cut
    /// off meanwhile comes as zeros.
    fn file(&mut self, mut file: File, path: &[u8]) -> Result<(), Failure> {
        let top = self.top;
        let failed = |error: io::Error| Failure::file(top.cannot_read(path), error);
        let stat = fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            // Replaced since it was looked at.
            return Ok(());
        }
        let mut entry = Entry::of(Kind::File, path, &stat);
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&id) {
                entry.link.clone_from(first);
                (entry.kind, entry.size) = (Kind::HardLink, 0);
                return self.put(&entry);
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(id, path.to_vec());
            }
        }
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if allocated < entry.size {
            entry.segments = segments(&mut file, entry.size).map_err(failed)?;
        }
        self.describe(&entry)?;
        let whole = [Segment { offset: 0, length: entry.size }];
        for segment in entry.segments.as_deref().unwrap_or(&whole) {
            self.content(&mut file, *segment, path)?;
        }
        self.writer.end_entry().map_err(sent)
    }

    fn content(&mut self, file: &mut File, data: Segment, path: &[u8]) -> Result<(), Failure> {
        let top = self.top;
        let failed = |error: io::Error| Failure::file(top.cannot_read(path), error);
        file.seek(SeekFrom::Start(data.offset)).map_err(failed)?;
        let mut from = file.chain(io::repeat(0)).take(data.length);
        loop {
            let length = from.read(&mut self.buffer).map_err(failed)?;
            if length == 0 {
                return Ok(());
            }
            self.writer.data(self.buffer.get(..length).unwrap_or_default()).map_err(sent)?;
            self.packed.bytes += length as u64;
        }
    }

    fn symlink(&mut self, path: &[u8], stat: &Stat, target: Vec<u8>) -> Result<(), Failure> {
        self.put(&Entry { link: target, ..Entry::of(Kind::Symlink, path, stat) })
    }

    fn special(&mut self, kind: FileType, path: &[u8], stat: &Stat) -> Result<(), Failure> {
        match Kind::of(kind) {
            Some(Kind::CharDevice | Kind::BlockDevice) if self.devices == Devices::LeaveOut => {}
            Some(kind) => return self.put(&Entry::of(kind, path, stat)),
            None => {}
        }
        self.packed.left_out += 1;
        Ok(())
    }

    fn describe(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.packed.entries += 1;
        self.writer.entry(entry).map_err(sent)
    }

    /// An entry without data.
    fn put(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.describe(entry)?;
        self.writer.end_entry().map_err(sent)
    }
}

/// Where the data of a file with holes is (lseek(2), `SEEK_DATA`); none where the file system has
/// no answer. Past the most stretches everything counts as data.
fn segments(file: &mut File, size: u64) -> io::Result<Option<Vec<Segment>>> {
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match fs::seek(&*file, fs::SeekFrom::Data(at)) {
            Ok(begin) => begin.min(size),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let end = match segments.len() + 2 < MAX_SEGMENTS {
            true => fs::seek(&*file, fs::SeekFrom::Hole(begin))?.min(size),
            false => size,
        };
        if end <= begin {
            break;
        }
        segments.push(Segment { offset: begin, length: end - begin });
        at = end;
    }
    // A file that takes less room because it is compressed has no holes.
    let whole = matches!(segments.as_slice(), [one] if one.length == size);
    Ok((!whole).then_some(segments))
}

fn is_pseudo(folder: impl AsFd) -> Result<bool, Errno> {
    let kind = fs::fstatfs(folder)?.f_type as u64;
    Ok(PSEUDO.contains(&(kind & 0xffff_ffff)))
}

#[cfg(test)]
mod tests;
