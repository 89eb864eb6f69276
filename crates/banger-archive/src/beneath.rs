//! Folders opened so that no symlink planted by whoever owns the tree can lead a write out of it:
//! every path is resolved with openat2(2) beneath a folder handle.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::failure::shown;
use crate::new_file::NewFile;

/// Longest path taken from anyone, in bytes (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// Most folders a path may be deep.
pub const MAX_DEPTH: usize = 128;

/// Owner and permission bits of something written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The superuser.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    pub(crate) fn ids(self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }
}

/// The parts of a path beneath a folder: no empty ones, no `.`, no `..`, no NUL.
///
/// # Errors
/// What is wrong with the path. A leading `/` is taken as the folder itself.
pub fn components(path: &[u8]) -> io::Result<Vec<&[u8]>> {
    let refused = |what: &str| {
        let text = format!("path `{}` {what}", shown(path));
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    if path.len() > MAX_PATH {
        return refused(&format!("is longer than {MAX_PATH} bytes"));
    }
    if path.contains(&0) {
        return refused("contains a zero byte");
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return refused("goes up with `..`");
    }
    if parts.len() > MAX_DEPTH {
        return refused(&format!("is more than {MAX_DEPTH} deep"));
    }
    Ok(parts)
}

/// A folder that everything is resolved beneath.
pub struct Folder {
    fd: OwnedFd,
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How symlinks on the way are treated; never can they lead out of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// A symlink is an error.
    Refuse,
    /// Followed, with the folder as their `/`: for `/lib` of a merged /usr.
    Inside,
}

impl Folder {
    /// Opens a folder by its path in the caller's own name space.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: impl rustix::path::Arg) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: fs::open(path, flags, Mode::empty())? })
    }

    /// The same for a folder that is no symlink itself.
    ///
    /// # Errors
    /// As open(2), `ENOTDIR` for a symlink.
    pub fn open_itself(path: impl rustix::path::Arg) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self { fd: fs::open(path, flags, Mode::empty())? })
    }

    /// Takes an open folder.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens something beneath; `path` may have several parts.
    ///
    /// # Errors
    /// As openat2(2): `ELOOP` for a symlink in the way, `EXDEV` for an escape.
    pub fn open_beneath(&self, path: &[u8], flags: OFlags, links: Links) -> io::Result<OwnedFd> {
        let path = relative(path);
        let resolve = match links {
            Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Links::Inside => ResolveFlags::IN_ROOT,
        } | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: a rename elsewhere raced with the resolution, openat2(2) says to try again.
        for _ in 0..16 {
            match fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens the folder at `path` beneath this one.
    ///
    /// # Errors
    /// As [`Folder::open_beneath`], `ENOTDIR`.
    pub fn folder(&self, path: &[u8], links: Links) -> io::Result<Self> {
        self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, links).map(Self::from_fd)
    }

    /// Opens the folder at `path`, making what is missing with this owner and mode.
    ///
    /// # Errors
    /// A part that is a symlink or not a folder, a full or read-only disk.
    pub fn make_folders(&self, path: &[u8], owner: Owner, mode: u32) -> io::Result<Self> {
        let parts = components(path)?;
        if let Ok(found) = self.folder(path, Links::Refuse) {
            return Ok(found);
        }
        let mut here = self.folder(b".", Links::Refuse)?;
        for part in parts {
            here = here.step_into(part, owner, mode)?;
        }
        Ok(here)
    }

    /// Opens the folder `name`, directly in this one, making it if it is missing.
    ///
    /// # Errors
    /// `name` is a symlink or not a folder; a full or read-only disk.
    pub fn step_into(&self, name: &[u8], owner: Owner, mode: u32) -> io::Result<Self> {
        match self.folder(name, Links::Refuse) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let (uid, gid) = owner.ids();
                if owner != Owner::ROOT {
                    fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            // Someone else made it meanwhile.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.folder(name, Links::Refuse)
    }

    /// Reads the regular file at `path`, at most `limit` bytes; symlinks stay inside the folder.
    ///
    /// # Errors
    /// As openat2(2) and read(2); a larger file or one of another kind is `InvalidData`.
    pub fn read(&self, path: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = std::fs::File::from(self.open_beneath(path, flags, Links::Inside)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        let mut content = Vec::new();
        file.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file is too large"));
        }
        Ok(content)
    }

    /// Whether there is anything called `path`, even a dangling symlink.
    pub fn has(&self, path: &[u8]) -> bool {
        match split_last(path) {
            Some((parent, name)) => self
                .folder(parent, Links::Inside)
                .is_ok_and(|folder| folder.kind_of(name).is_some()),
            None => true,
        }
    }

    /// What `name`, directly in this folder, is; `None` if there is nothing.
    pub fn kind_of(&self, name: &[u8]) -> Option<FileType> {
        let stat = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// Replaces or creates `name`, directly in this folder, in one step: written under another
    /// name, then renamed over whatever was there (a symlink itself, not its target).
    ///
    /// # Errors
    /// A full or read-only disk; `name` is a folder.
    pub fn put(&self, name: &[u8], content: &[u8], owner: Owner, mode: u32) -> io::Result<()> {
        let mut new = NewFile::create_named(self, Some(owner))?;
        new.write(content, mode)?;
        new.finish(name)
    }

    /// Gives a complete temporary symlink, pipe or link its name, or removes it after an error.
    ///
    /// # Errors
    /// `written`'s own, or renameat(2)'s.
    pub fn finish(&self, written: io::Result<()>, temporary: &[u8], name: &[u8]) -> io::Result<()> {
        let renamed = written.and_then(|()| Ok(fs::renameat(&self.fd, temporary, &self.fd, name)?));
        if renamed.is_err() {
            self.remove(temporary);
        }
        renamed
    }

    fn remove(&self, name: &[u8]) {
        // Only tidying after an error that is being reported.
        let _ = fs::unlinkat(&self.fd, name, AtFlags::empty());
    }
}

/// `path` without leading slashes, `.` for the folder itself.
fn relative(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    match path.get(start..) {
        None | Some([]) => b".",
        Some(rest) => rest,
    }
}

/// Parent and last part of a path; `None` for the folder itself.
pub fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = path.get(..end)?;
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((path.get(..slash)?, path.get(slash + 1..)?)),
        None => Some((b"", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    fn me() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for path in ["..", "a/../b", "/../x", "a/..", "a\0b"] {
            assert!(components(path.as_bytes()).is_err(), "{path}");
        }
        assert_eq!(components(b"/a//./b/").unwrap(), [b"a".as_slice(), b"b"]);
        assert!(components(&vec![b'a'; MAX_PATH + 1]).is_err());
        assert!(components("a/".repeat(MAX_DEPTH + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_component_can_leave(path in "[a./\\x00]{0,24}") {
            if let Ok(parts) = components(path.as_bytes()) {
                for part in parts {
                    prop_assert!(!part.is_empty() && part != b"." && part != b"..");
                    prop_assert!(!part.contains(&b'/') && !part.contains(&0));
                }
            }
        }
    }

    #[test]
    fn a_planted_symlink_is_not_followed() {
        let (dir, folder) = folder();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("etc")).unwrap();
        assert!(folder.make_folders(b"etc/ssh", me(), 0o755).is_err());
        assert!(folder.folder(b"etc", Links::Refuse).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_followed_inside_never_leave() {
        let (dir, folder) = folder();
        std::fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        std::os::unix::fs::symlink("/usr/lib", dir.path().join("lib")).unwrap();
        std::os::unix::fs::symlink("/../../../..", dir.path().join("up")).unwrap();
        std::fs::write(dir.path().join("usr/lib/os-release"), "here").unwrap();
        assert_eq!(folder.read(b"/lib/os-release", 10).unwrap(), b"here");
        assert_eq!(folder.read(b"up/usr/lib/os-release", 10).unwrap(), b"here");
        assert!(folder.read(b"lib/os-release", 3).is_err());
    }

    #[test]
    fn put_replaces_the_symlink_itself() {
        let (dir, folder) = folder();
        let target = dir.path().join("target");
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("resolv.conf")).unwrap();
        folder.put(b"resolv.conf", b"new", me(), 0o640).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        let placed = dir.path().join("resolv.conf");
        assert!(placed.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(placed).unwrap(), b"new");
    }

    #[test]
    fn a_failed_put_leaves_nothing() {
        let (dir, folder) = folder();
        std::fs::create_dir(dir.path().join("name")).unwrap();
        assert!(folder.put(b"name", b"x", me(), 0o644).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn last_parts() {
        assert_eq!(split_last(b"/a/b/"), Some((b"/a".as_slice(), b"b".as_slice())));
        assert_eq!(split_last(b"b"), Some((b"".as_slice(), b"b".as_slice())));
        assert_eq!(split_last(b"//"), None);
    }
}
