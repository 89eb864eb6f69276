//! Disk space set aside for the store, so that VMs can be stopped and deleted on a full disk.
//!
//! Two parts, because no single one works on every file system:
//!
//! - While the database is open, its write-ahead log has blocks allocated up to [`WAL_BYTES`]
//!   (fallocate(2) with `FALLOC_FL_KEEP_SIZE`). Where files are overwritten in place, commits need
//!   no further space, and no other program can take it.
//! - The file `banger.reserve` of [`FILE_BYTES`] is removed when a write fails for want of space,
//!   and the write is tried again: for copy-on-write file systems, and for opening the database,
//!   when SQLite makes the log and `banger.db-shm`. It is made again when there is space.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, statat, unlinkat};
use rustix::io::Errno;

/// Blocks kept for the write-ahead log, in bytes: twice its size when SQLite copies it back.
pub const WAL_BYTES: u64 = 8 * 1024 * 1024;
/// Blocks kept where there is no room for more, in bytes: some twenty operations.
const LEAST_WAL_BYTES: u64 = 1024 * 1024;
/// Size of the reserve file, in bytes.
pub const FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Steps in which the database grows, in bytes, so that it mostly has free pages.
pub const CHUNK_BYTES: i32 = 1024 * 1024;
/// Shortest time between two attempts to set space aside.
const PAUSE: Duration = Duration::from_secs(10);

/// Space set aside beside one database file.
#[derive(Debug)]
pub struct Reserve {
    folder: OwnedFd,
    wal: OsString,
    file: OsString,
    /// Whether all of it is there, and when that was last attempted.
    complete: bool,
    tried: Option<Instant>,
}

impl Reserve {
    /// For the database `name` in `folder`, an `O_PATH` descriptor. Nothing is allocated yet.
    pub fn new(folder: OwnedFd, name: &OsStr) -> Self {
        let beside = |suffix: &str| {
            let mut beside = name.to_owned();
            beside.push(suffix);
            beside
        };
        let file = OsStr::new(name.to_str().and_then(|n| n.strip_suffix(".db")).unwrap_or("store"));
        let mut file = file.to_owned();
        file.push(".reserve");
        Self { folder, wal: beside("-wal"), file, complete: false, tried: None }
    }

    /// Frees the reserve file; `false` where there was none.
    pub fn release(&mut self) -> bool {
        self.complete = false;
        unlinkat(&self.folder, &self.file, AtFlags::empty()).is_ok()
    }

    /// Sets aside what is missing, at most once in [`PAUSE`]. A disk without room is no error.
    pub fn fill(&mut self) {
        if self.complete || self.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return;
        }
        self.tried = Some(Instant::now());
        self.complete = self.keep_wal().is_ok() && self.make_file().is_ok();
    }

    fn keep_wal(&self) -> Result<(), Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let wal = openat(&self.folder, &self.wal, flags, Mode::empty())?;
        let keep = |bytes| supported(fallocate(&wal, FallocateFlags::KEEP_SIZE, 0, bytes));
        let all = keep(WAL_BYTES);
        if all.is_err() {
            // As much as there is; the failure is tried again all the same.
            let _ = keep(LEAST_WAL_BYTES);
        }
        all
    }

    fn make_file(&self) -> Result<(), Errno> {
        let there = statat(&self.folder, &self.file, AtFlags::SYMLINK_NOFOLLOW);
        let allocated = there.map_or(0, |file| u64::try_from(file.st_blocks).unwrap_or(0) * 512);
        if allocated >= FILE_BYTES {
            return Ok(());
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.folder, &self.file, flags, Mode::RUSR | Mode::WUSR)?;
        supported(fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES))
    }
}

/// A file system without fallocate(2) has no reserve; trying again does not help.
fn supported(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::OPNOTSUPP) { Ok(()) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn reserve(folder: &Path) -> Reserve {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
        Reserve::new(folder, OsStr::new("banger.db"))
    }

    #[test]
    fn space_is_set_aside_released_and_set_aside_again() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, file) =
            (folder.path().join("banger.db-wal"), folder.path().join("banger.reserve"));
        std::fs::write(&wal, "x").unwrap();
        let mut reserve = reserve(folder.path());
        reserve.fill();
        let wal = std::fs::metadata(&wal).unwrap();
        assert_eq!(wal.len(), 1, "SQLite sees the log as it was");
        assert!(wal.blocks() * 512 >= WAL_BYTES);
        assert!(std::fs::metadata(&file).unwrap().blocks() * 512 >= FILE_BYTES);
        assert!(reserve.release());
        assert!(!file.exists() && !reserve.release());
        reserve.fill();
        assert!(!file.exists(), "not at once");
        reserve.tried = None;
        reserve.fill();
        assert!(file.exists());
    }
}
