//! Tells a folder apart from another one in its place.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};

use crate::{Kind, Stamp};

/// What another folder at the same path has differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Time when it was made, in nanoseconds since 1970; 0 where the file system does not keep it.
    pub born_ns: u64,
}

impl Identity {
    /// That of the folder at a path (statx(2)).
    ///
    /// # Errors
    /// The system's; `ENOTDIR` for another file, also for a symlink.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::at(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// That of the folder at a path, or of the one that a symlink there leads to.
    ///
    /// # Errors
    /// The system's; `ENOTDIR` for another file.
    pub(crate) fn behind(path: &Path) -> io::Result<Self> {
        Self::at(CWD, path, AtFlags::empty())
    }

    /// That of an open folder.
    pub(crate) fn of_open(folder: impl std::os::fd::AsFd) -> io::Result<Self> {
        Self::at(folder, Path::new(""), AtFlags::EMPTY_PATH)
    }

    fn at(from: impl std::os::fd::AsFd, path: &Path, flags: AtFlags) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(from, path, flags, wanted)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let seconds = u64::try_from(stat.stx_btime.tv_sec).unwrap_or(0);
        let born_ns = seconds.saturating_mul(1_000_000_000) + u64::from(stat.stx_btime.tv_nsec);
        Ok(Self { inode: stat.stx_ino, born_ns: if has_birth { born_ns } else { 0 } })
    }

    /// As the answer to [`crate::Request::Folder`] with the empty path.
    pub fn stamp(self) -> Stamp {
        let Self { inode, born_ns } = self;
        Stamp { kind: Kind::Folder, size: 0, inode, mtime_ns: born_ns, ctime_ns: 0 }
    }

    /// That in such an answer; none if it is another one.
    pub fn of_stamp(stamp: &Stamp) -> Option<Self> {
        let found = Self { inode: stamp.inode, born_ns: stamp.mtime_ns };
        (found.stamp() == *stamp).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn another_folder_has_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let of = || Identity::of(&path);
        assert_eq!(of().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        let first = of().unwrap();
        fs::write(path.join("x"), "content changes nothing").unwrap();
        assert_eq!(of().unwrap(), first);
        assert_eq!(Identity::of_open(fs::File::open(&path).unwrap()).unwrap(), first);
        assert_eq!(Identity::of_stamp(&first.stamp()), Some(first));
        fs::rename(&path, dir.path().join("b")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ne!(of().unwrap(), first);
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("b", &path).unwrap();
        assert_eq!(Identity::behind(&path).unwrap(), first);
        assert_eq!(of().unwrap_err().kind(), io::ErrorKind::NotADirectory);
        let file = Stamp { kind: Kind::File, ..first.stamp() };
        assert_eq!(Identity::of_stamp(&file), None);
    }
}
