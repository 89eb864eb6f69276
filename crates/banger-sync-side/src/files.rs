//! What a side does with its files: lists, reads, and changes that replace only what is expected.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use banger_archive::beneath::{Folder, Links, Owner, components};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use sha1::{Digest as _, Sha1};

use crate::failed::Failed;
use crate::stage::{self, Staged};
use crate::watch::Watch;
use crate::{Cause, Digest, Entry, Expected, Identity, Kind, PIECE, Reply, Stamp};

/// Mode of new folders.
const FOLDER_MODE: u32 = 0o755;
/// Most bytes of entries in one reply; a name and a target of the longest length still fit.
const ENTRIES: usize = 64 * 1024;
/// Bytes of an entry besides name and target.
const ENCODED_STAMP: usize = 41;
/// Bytes of a file that are read before [`Reply::Working`] is sent.
const WORKING: u64 = 16 << 20;

/// Limits of a side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Free bytes of the file system below which no file is written.
    pub reserve_bytes: u64,
}

/// One side of a live folder.
pub struct Side {
    pub(crate) root: Folder,
    /// Where the folder was opened.
    path: Option<PathBuf>,
    owner: Option<Owner>,
    rules: Rules,
    pub(crate) watch: Watch,
}

/// Result of a change: the state of what was written.
type Changed = Result<Expected, Failed>;

impl Side {
    /// A side for this folder. New files belong to the folder's owner if the caller is root.
    ///
    /// # Errors
    /// The folder cannot be examined or watched: inotify_init(2).
    pub fn new(root: Folder, rules: Rules) -> io::Result<Self> {
        let stat = fs::fstat(&root)?;
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
        let owner = rustix::process::geteuid().is_root().then_some(owner);
        Ok(Self { root, path: None, owner, rules, watch: Watch::new()? })
    }

    /// The same with the path at which the folder was opened, which may lead to another one later.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The identity of the folder at the path, or of the open folder.
    fn identity(&self) -> Changed {
        let found = match &self.path {
            Some(path) => Identity::behind(path),
            None => Identity::of_open(&self.root),
        };
        Ok(Some(found?.stamp()))
    }

    /// Watches and lists a folder; `send` takes pieces of the list. The folder is watched first, so
    /// that no change after the list is missed.
    pub(crate) fn list(
        &mut self,
        path: &[u8],
        send: &mut dyn FnMut(Reply) -> io::Result<()>,
    ) -> io::Result<Result<Reply, Failed>> {
        let handle = match self.folder(path).and_then(|folder| Ok(folder.try_clone()?)) {
            Ok(handle) => handle,
            Err(failed) => return Ok(Err(failed)),
        };
        if path.is_empty() && fs::fstat(&handle).is_ok_and(|stat| stat.st_nlink == 0) {
            // An empty list would say that the files were removed, not the folder.
            send(Reply::RootGone)?;
            return Ok(Err(Failed::new(Cause::Missing, "the folder was removed")));
        }
        let watched = self.watch.add(path, &handle);
        let now_ns = now_ns();
        let names = match self.names(path) {
            Ok(names) => names,
            Err(failed) => return Ok(Err(failed)),
        };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for name in names {
            // Removed meanwhile.
            let Ok(stamp) = stamp_of(&handle, &name) else { continue };
            let target = match stamp.kind {
                Kind::Link => match fs::readlinkat(&handle, name.as_slice(), Vec::new()) {
                    Ok(target) => target.into_bytes(),
                    Err(_) => continue,
                },
                _ => Vec::new(),
            };
            bytes += name.len() + target.len() + ENCODED_STAMP;
            entries.push(Entry { name, stamp, target });
            if bytes > ENTRIES {
                send(Reply::Entries(std::mem::take(&mut entries)))?;
                bytes = 0;
            }
        }
        if !entries.is_empty() {
            send(Reply::Entries(entries))?;
        }
        Ok(Ok(Reply::Listed { now_ns, watched }))
    }

    /// Names in a folder, without those of files that are being written.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Failed> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let handle = self.root.open_beneath(path, flags, Links::Refuse)?;
        let (mut names, mut temporary) = (Vec::new(), false);
        for entry in Dir::new(handle)? {
            let entry = entry?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name if banger_archive::is_temporary(name) => temporary = true,
                name => names.push(name.to_vec()),
            }
        }
        if temporary {
            banger_archive::remove_leftovers(&self.root.folder(path, Links::Refuse)?);
        }
        Ok(names)
    }

    /// Reads a file up to its size; `each` takes the pieces.
    pub(crate) fn read(
        &self,
        path: &[u8],
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Result<Reply, Failed>> {
        let opened = self.open_file(path, OFlags::RDONLY);
        let (mut file, before) = match opened {
            Ok(opened) => opened,
            Err(failed) => return Ok(Err(failed)),
        };
        let (mut hash, mut left) = (Sha1::new(), before.size);
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let read = match file.read(piece.get_mut(..most).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error.into())),
                Ok(0) => return Ok(Err(Failed::changed())),
                Ok(read) => piece.get(..read).unwrap_or_default(),
            };
            hash.update(read);
            each(read)?;
            left -= read.len() as u64;
        }
        let now_ns = now_ns();
        let after = match fs::fstat(&file) {
            Ok(stat) => stamp(&stat),
            Err(errno) => return Ok(Err(errno.into())),
        };
        if after != before {
            return Ok(Err(Failed::changed()));
        }
        Ok(Ok(Reply::Hashed { stamp: after, digest: Digest::from(hash.finalize()), now_ns }))
    }

    /// The digest of a file; `working` is called from time to time.
    pub(crate) fn hash(
        &self,
        path: &[u8],
        working: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Result<Reply, Failed>> {
        let mut read = 0;
        self.read(path, &mut |piece| {
            read += piece.len() as u64;
            if read < WORKING {
                return Ok(());
            }
            read = 0;
            working()
        })
    }

    /// Begins a file of this size.
    pub(crate) fn begin(&self, path: &[u8], size: u64) -> Result<Staged, Failed> {
        let (parent, name) = self.parent(path)?;
        if self.rules.reserve_bytes > 0 {
            let disk = fs::fstatvfs(&self.root)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free < self.rules.reserve_bytes.saturating_add(size) {
                return Err(Failed::new(Cause::Failed, "too little space is free on the disk"));
            }
        }
        Ok(Staged::create(parent, name)?)
    }

    /// Gives a complete file its name.
    pub(crate) fn commit(&self, staged: Staged, expected: Expected, program: bool) -> Changed {
        let (old, owner) = match expected {
            Some(expected) => {
                let stat = fs::statat(&staged.parent, &*staged.name, AtFlags::SYMLINK_NOFOLLOW)?;
                check(&stamp(&stat), &expected)?;
                let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
                let is_file = matches!(expected.kind, Kind::File | Kind::Program);
                (is_file.then_some(stat.st_mode & 0o777), self.owner.map(|_| owner))
            }
            None => (None, self.owner),
        };
        staged.set_up(mode(old.unwrap_or(0o644), program), owner)?;
        let (parent, name) = (staged.parent.try_clone()?, staged.name.clone());
        staged.finish(expected.as_ref())?;
        Ok(Some(stamp_of(&parent, &name)?))
    }

    /// Makes a folder; one that exists is kept.
    pub(crate) fn make_folder(&self, path: &[u8]) -> Changed {
        if path.is_empty() {
            return self.identity();
        }
        let (parent, name) = self.parent(path)?;
        match fs::mkdirat(&parent, &*name, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) => {
                if let Some((uid, gid)) = self.owner.map(stage::ids) {
                    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
                    fs::chownat(&parent, &*name, Some(uid), Some(gid), no_follow)?;
                }
                // The umask of the daemon is stricter.
                let made = self.root.open_beneath(path, OFlags::RDONLY, Links::Refuse)?;
                fs::fchmod(&made, Mode::from_raw_mode(FOLDER_MODE))?;
            }
            Err(Errno::EXIST) if stamp_of(&parent, &name)?.kind == Kind::Folder => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Some(stamp_of(&parent, &name)?))
    }

    /// Makes a symlink.
    pub(crate) fn make_link(&self, path: &[u8], target: &[u8], expected: Expected) -> Changed {
        let (parent, name) = self.parent(path)?;
        if let Some(expected) = &expected {
            check(&stamp_of(&parent, &name)?, expected)?;
        }
        let temporary = banger_archive::temporary_name();
        fs::symlinkat(target, &parent, temporary.as_slice())?;
        if let Some((uid, gid)) = self.owner.map(stage::ids) {
            let no_follow = AtFlags::SYMLINK_NOFOLLOW;
            fs::chownat(&parent, temporary.as_slice(), Some(uid), Some(gid), no_follow)?;
        }
        stage::place(&parent, &temporary, &name, expected.as_ref())?;
        Ok(Some(stamp_of(&parent, &name)?))
    }

    /// Removes a file, a symlink or an empty folder.
    pub(crate) fn remove(&self, path: &[u8], expected: &Stamp) -> Changed {
        let (parent, name) = self.parent(path)?;
        let found = stamp_of(&parent, &name)?;
        if expected.kind == Kind::Folder {
            if found.kind != Kind::Folder {
                return Err(Failed::changed());
            }
            fs::unlinkat(&parent, &*name, AtFlags::REMOVEDIR)?;
            return Ok(None);
        }
        check(&found, expected)?;
        // Out of reach of programs that open it by name, then looked at once more.
        let temporary = banger_archive::temporary_name();
        stage::rename_new(&parent, &name, &temporary)?;
        if !stamp_of(&parent, &temporary)?.is_renamed(expected) {
            stage::rename_new(&parent, &temporary, &name)?;
            return Err(Failed::changed());
        }
        fs::unlinkat(&parent, temporary.as_slice(), AtFlags::empty())?;
        Ok(None)
    }

    /// Sets or clears the execute bits.
    pub(crate) fn set_executable(&self, path: &[u8], expected: &Stamp, program: bool) -> Changed {
        let (file, found) = self.open_file(path, OFlags::RDONLY)?;
        check(&found, expected)?;
        let old = fs::fstat(&file)?.st_mode & 0o777;
        fs::fchmod(&file, Mode::from_raw_mode(mode(old, program)))?;
        Ok(Some(stamp(&fs::fstat(&file)?)))
    }

    /// Renames within a folder, never replacing.
    pub(crate) fn rename(&self, path: &[u8], to: &[u8], expected: &Stamp) -> Changed {
        let (parent, name) = self.parent(path)?;
        if components(to)?.as_slice() != [to] {
            return Err(Failed::new(Cause::Failed, "the new name is not the name of a file"));
        }
        let found = stamp_of(&parent, &name)?;
        // The time of a folder changes with its content.
        if found.kind != Kind::Folder || expected.kind != Kind::Folder {
            check(&found, expected)?;
        }
        stage::rename_new(&parent, &name, to)?;
        Ok(Some(stamp_of(&parent, to)?))
    }

    /// Writes everything to the disk.
    pub(crate) fn flush(&self) -> Changed {
        let handle = self.root.open_beneath(b".", OFlags::RDONLY, Links::Refuse)?;
        fs::syncfs(handle)?;
        Ok(None)
    }

    fn folder(&self, path: &[u8]) -> Result<OwnedFd, Failed> {
        components(path)?;
        Ok(self.root.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Links::Refuse)?)
    }

    /// The folder that a path is in, and its name there.
    fn parent(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Failed> {
        let mut parts = components(path)?;
        let name = parts.pop().ok_or_else(|| Failed::new(Cause::Failed, "it has no name"))?;
        Ok((self.folder(&parts.join(&b'/'))?, name.to_vec()))
    }

    fn open_file(&self, path: &[u8], flags: OFlags) -> Result<(File, Stamp), Failed> {
        components(path)?;
        // Without it, a pipe of the same name would block.
        let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = File::from(self.root.open_beneath(path, flags, Links::Refuse)?);
        let stamp = stamp(&fs::fstat(&file)?);
        match stamp.kind {
            Kind::File | Kind::Program => Ok((file, stamp)),
            Kind::Folder | Kind::Link | Kind::Other => Err(Failed::changed()),
        }
    }
}

fn check(found: &Stamp, expected: &Stamp) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(Failed::changed()) }
}

/// Permission bits with execute bits where there are read bits, or without.
fn mode(old: u32, program: bool) -> u32 {
    let plain = old & 0o666;
    if program { plain | (plain & 0o444) >> 2 } else { plain }
}

/// The state of `name` in a folder.
pub(crate) fn stamp_of(parent: impl AsFd, name: &[u8]) -> Result<Stamp, Failed> {
    Ok(stamp(&fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

fn stamp(stat: &Stat) -> Stamp {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode & 0o100 != 0 => Kind::Program,
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    };
    let nanos = |seconds: i64, nanos: u64| {
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos)
    };
    Stamp {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        inode: stat.st_ino,
        mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec),
    }
}

pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
