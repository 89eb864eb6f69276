//! A folder of the host: owners, modes, times, attributes, links, devices and holes as on disk.
//!
//! Every path is opened beneath the folder, without following a link and without entering another
//! mount, so that a folder that changes meanwhile cannot lead out of itself.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::left_out::LeftOut;
use super::{Context, Inspect, RootFs, posix_acl};
use crate::ext4::{Content, Contents, Ext4Error, Extent, Fill, Kind, Meta, Tree};
use crate::fetch::{FetchError, PathContext};
use crate::images::ImageError;

/// Block of the images that are written.
const BLOCK: u64 = 4096;
/// Times that ext4 can store: 34 bits of seconds from 1901.
const TIMES_S: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - (1 << 31) - 1;
/// Number of bytes read at once.
const BUFFER_BYTES: usize = 1 << 17;

/// What tells that a file or folder has changed: inode, size, and both times.
type Stamp = (u64, u64, (i64, u32), (i64, u32));

struct FileEntry {
    path: Vec<u8>,
    stamp: Stamp,
    data: Vec<Extent>,
}

/// A folder.
pub struct Folder<'a> {
    path: PathBuf,
    root: OwnedFd,
    files: Vec<FileEntry>,
    folders: Vec<(Vec<u8>, Stamp)>,
    hash: Sha256,
    context: Context<'a>,
}

impl<'a> Folder<'a> {
    /// Opens a folder.
    ///
    /// # Errors
    /// open(2).
    pub fn open(path: &Path, context: Context<'a>) -> Result<Self, ImageError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rfs::open(path, flags, Mode::empty()).at("open", path)?;
        let (files, folders, hash) = (Vec::new(), Vec::new(), Sha256::new());
        Ok(Self { path: path.to_owned(), root, files, folders, hash, context })
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Ext4Error> {
        let within = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            match rfs::openat2(&self.root, within, flags, Mode::empty(), resolve) {
                // A rename in the path raced with the look-up.
                Err(Errno::AGAIN) => {}
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => {
                    return Err(Ext4Error::Changed(self.full(path)));
                }
                opened => return Ok(opened.at("open", &self.full(path))?),
            }
        }
    }

    fn stat(&self, folder: impl AsFd, name: &[u8], path: &[u8]) -> Result<Statx, Ext4Error> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        match rfs::statx(folder, OsStr::from_bytes(name), flags, StatxFlags::BASIC_STATS) {
            Err(Errno::NOENT) => Err(Ext4Error::Changed(self.full(path))),
            found => Ok(found.at("look at", &self.full(path))?),
        }
    }

    /// Reads a folder's own node and its names.
    fn names(
        &mut self,
        tree: &mut Tree,
        path: &[u8],
    ) -> Result<(OwnedFd, Vec<Vec<u8>>), Ext4Error> {
        let folder = self.open_beneath(path, OFlags::DIRECTORY | OFlags::RDONLY)?;
        let stat = self.stat(&folder, b"", path)?;
        self.folders.push((path.to_vec(), stamp(&stat)));
        let own = format!("/proc/self/fd/{}", folder.as_raw_fd());
        self.put(tree, path, Kind::Folder(BTreeMap::new()), &stat, Path::new(&own))?;
        let mut names = Vec::new();
        let entries = rfs::Dir::read_from(&folder).at("read the folder", &self.full(path))?;
        for entry in entries {
            let entry = entry.at("read the folder", &self.full(path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_bytes().to_vec());
            }
        }
        names.sort_unstable();
        Ok((folder, names))
    }

    /// Adds a node, and its line to the digest.
    fn put(
        &mut self,
        tree: &mut Tree,
        path: &[u8],
        kind: Kind,
        stat: &Statx,
        link: &Path,
    ) -> Result<(), Ext4Error> {
        let meta = meta(stat);
        let xattrs = self.xattrs(link, path)?;
        let what = match &kind {
            Kind::Folder(_) => "folder".to_owned(),
            Kind::File(content) => format!("file {}", content.bytes()),
            Kind::Symlink(target) => format!("link {}", target.escape_ascii()),
            Kind::Char { major, minor } => format!("char {major} {minor}"),
            Kind::Block { major, minor } => format!("block {major} {minor}"),
            Kind::Fifo => "fifo".to_owned(),
        };
        let path_text = path.escape_ascii();
        self.hash.update(format!("{path_text} {meta:?} {xattrs:?} {what}\n"));
        let id = tree.put(path, kind, meta)?;
        tree.set_xattrs(id, xattrs)?;
        Ok(())
    }

    /// Attributes through a path that does not lead through the folder's names.
    fn xattrs(&self, link: &Path, path: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Ext4Error> {
        let mut list = vec![0; 1 << 16];
        let length = match rfs::llistxattr(link, &mut list) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(unreadable(error.into(), &self.full(path)).into()),
        };
        let mut xattrs = BTreeMap::new();
        for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            // The label belongs to this host.
            if name == "security.selinux" {
                continue;
            }
            let mut value = vec![0; 1 << 16];
            let length = match rfs::lgetxattr(link, name, &mut value) {
                Ok(length) => length,
                // Removed meanwhile, or not for this user.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
                Err(error) => return Err(unreadable(error.into(), &self.full(path)).into()),
            };
            value.truncate(length);
            if name.starts_with("system.posix_acl_") {
                let Some(list) = posix_acl::of_ext4(&value) else { continue };
                value = list;
            } else if !["user.", "trusted.", "security."].iter().any(|s| name.starts_with(s)) {
                continue;
            }
            xattrs.insert(name.to_owned(), value);
        }
        Ok(xattrs)
    }

    fn file(
        &mut self,
        tree: &mut Tree,
        path: &[u8],
        stat: &Statx,
        link: &Path,
        inspect: &mut Inspect<'_>,
    ) -> Result<(), Ext4Error> {
        let full = self.full(path);
        let file = File::from(self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let stamp = stamp(stat);
        if self::stamp(&self.stat(&file, b"", path)?) != stamp {
            return Err(Ext4Error::Changed(full));
        }
        let data = data(&file, stat.stx_size).at("read", &full)?;
        let (index, bytes) = (self.files.len() as u64, stat.stx_size);
        let whole = Extent { offset: 0, bytes };
        let content = match data.as_slice() {
            [all] if *all == whole => Content::Source { index, bytes },
            [] if bytes == 0 => Content::Source { index, bytes },
            _ => Content::Sparse { index, bytes, data: data.clone().into() },
        };
        inspect(path, &content, &mut Parts::new(&file, &data))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut parts = Parts::new(&file, &data);
        loop {
            self.context.progress.go_on()?;
            match parts.read(&mut buffer).at("read", &full)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        let digest = format!("{data:?} {:02x?}", hash.finalize().as_slice());
        self.hash.update(digest);
        self.put(tree, path, Kind::File(content), stat, link)?;
        self.files.push(FileEntry { path: path.to_vec(), stamp, data });
        Ok(())
    }
}

impl RootFs for Folder<'_> {
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error> {
        let mut tree = Tree::new();
        let (mut sockets, mut mounts) = (LeftOut::default(), LeftOut::default());
        let mut links: HashMap<(u32, u32, u64), Vec<u8>> = HashMap::new();
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let (folder, names) = self.names(&mut tree, &path)?;
            for name in names {
                let path =
                    if path.is_empty() { name.clone() } else { [&path, &b"/"[..], &name].concat() };
                let stat = self.stat(&folder, &name, &path)?;
                let own = format!("/proc/self/fd/{}", folder.as_raw_fd());
                let link = Path::new(&own).join(OsStr::from_bytes(&name));
                let kind = rfs::FileType::from_raw_mode(u32::from(stat.stx_mode));
                let is_mount = stat.stx_attributes.contains(rfs::StatxAttributes::MOUNT_ROOT);
                if is_mount {
                    mounts.add(&path);
                    if kind.is_dir() {
                        tree.put(&path, Kind::Folder(BTreeMap::new()), meta(&stat))?;
                    }
                    continue;
                }
                if kind == rfs::FileType::Socket {
                    sockets.add(&path);
                    continue;
                }
                if kind.is_dir() {
                    todo.push(path);
                    continue;
                }
                if stat.stx_nlink > 1 {
                    let file = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
                    if let Some(first) = links.get(&file) {
                        tree.link(&path, first)?;
                        let (first, path) = (first.escape_ascii(), path.escape_ascii());
                        self.hash.update(format!("{path} = {first}\n"));
                        continue;
                    }
                    links.insert(file, path.clone());
                }
                let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
                let node = match kind {
                    rfs::FileType::RegularFile => {
                        self.file(&mut tree, &path, &stat, &link, inspect)?;
                        continue;
                    }
                    rfs::FileType::Symlink => {
                        let target = rfs::readlinkat(&folder, OsStr::from_bytes(&name), Vec::new());
                        let target = target.at("read the link", &self.full(&path))?;
                        Kind::Symlink(target.into_bytes())
                    }
                    rfs::FileType::CharacterDevice => Kind::Char { major, minor },
                    rfs::FileType::BlockDevice => Kind::Block { major, minor },
                    _ => Kind::Fifo,
                };
                self.put(&mut tree, &path, node, &stat, &link)?;
            }
        }
        let lines = [sockets.line("left out sockets"), mounts.line("left out other mounts")];
        for line in lines.into_iter().flatten() {
            self.context.progress.warning(&line);
        }
        Ok(tree)
    }

    fn sha256(&self) -> String {
        let digest = self.hash.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn kind(&self) -> &'static str {
        "folder"
    }

    fn unchanged(&self) -> bool {
        let same = |(path, seen): &(Vec<u8>, Stamp)| {
            let folder = self.open_beneath(path, OFlags::DIRECTORY | OFlags::RDONLY);
            let now = folder.and_then(|folder| self.stat(&folder, b"", path));
            now.is_ok_and(|stat| stamp(&stat) == *seen)
        };
        self.folders.iter().all(same)
    }
}

impl Contents for Folder<'_> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        for (index, entry) in (0..).zip(&self.files) {
            self.context.progress.go_on()?;
            let file =
                File::from(self.open_beneath(&entry.path, OFlags::RDONLY | OFlags::NONBLOCK)?);
            let parts = Parts::new(&file, &entry.data);
            let filled = fill(index, &mut io::BufReader::with_capacity(BUFFER_BYTES, parts));
            // A file that has become shorter ends early.
            if stamp(&self.stat(&file, b"", &entry.path)?) != entry.stamp {
                return Err(Ext4Error::Changed(self.full(&entry.path)));
            }
            filled?;
        }
        Ok(())
    }
}

fn unreadable(source: io::Error, path: &Path) -> FetchError {
    FetchError::io("read the attributes of", path, source)
}

fn stamp(stat: &Statx) -> Stamp {
    let time = |time: &rfs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
    (stat.stx_ino, stat.stx_size, time(&stat.stx_mtime), time(&stat.stx_ctime))
}

fn meta(stat: &Statx) -> Meta {
    Meta {
        mode: stat.stx_mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime_s: stat.stx_mtime.tv_sec.clamp(*TIMES_S.start(), *TIMES_S.end()),
        mtime_ns: stat.stx_mtime.tv_nsec,
    }
}

/// Extents of whole blocks with data, by `SEEK_DATA` and `SEEK_HOLE`.
fn data(file: &File, bytes: u64) -> io::Result<Vec<Extent>> {
    let (mut data, mut at) = (Vec::<Extent>::new(), 0);
    while at < bytes {
        let start = match rfs::seek(file, rfs::SeekFrom::Data(at)) {
            Ok(start) => start / BLOCK * BLOCK,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rfs::seek(file, rfs::SeekFrom::Hole(start.max(at)))?;
        let end = end.div_ceil(BLOCK).saturating_mul(BLOCK).min(bytes);
        match data.last_mut() {
            Some(last) if last.offset + last.bytes >= start => last.bytes = end - last.offset,
            _ => data.push(Extent { offset: start, bytes: end.saturating_sub(start) }),
        }
        at = end.max(at + 1);
    }
    Ok(data)
}

/// Reads extents of a file one after the other; ends early if the file does.
struct Parts<'a> {
    file: &'a File,
    left: Vec<Extent>,
}

impl<'a> Parts<'a> {
    fn new(file: &'a File, data: &[Extent]) -> Self {
        Self { file, left: data.iter().rev().copied().collect() }
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.left.last_mut() else { return Ok(0) };
        let want = usize::try_from(part.bytes.min(buffer.len() as u64)).unwrap_or_default();
        let count = self.file.read_at(&mut buffer[..want], part.offset)?;
        part.offset += count as u64;
        part.bytes -= count as u64;
        if part.bytes == 0 {
            self.left.pop();
        }
        Ok(count)
    }
}
