//! Disk space reserved for the store, so that VMs can be stopped and deleted on a full disk.
//!
//! Two parts, because neither works on every file system:
//!
//! - While the database is open, its write-ahead log has blocks allocated up to [`WAL_BYTES`]
//!   (fallocate(2) with `FALLOC_FL_KEEP_SIZE`). On file systems that overwrite in place, commits
//!   then need no further space, and no other program can take it.
//! - The file `banger.reserve` of [`FILE_BYTES`] is removed when a write fails for lack of space,
//!   and the write is repeated: for copy-on-write file systems, and for opening the database, when
//!   SQLite creates the log and `banger.db-shm`. It is created again when there is space.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, statat, unlinkat};
use rustix::io::Errno;

/// Bytes allocated for the write-ahead log: twice its size at a checkpoint.
pub const WAL_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes allocated if there is no space for more: about twenty operations.
const LEAST_WAL_BYTES: u64 = 1024 * 1024;
/// Size of the reserve file, in bytes.
pub const FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Growth increment of the database in bytes, so that it usually has free pages.
pub const CHUNK_BYTES: i32 = 1024 * 1024;
/// Minimum time between two attempts to reserve space.
const PAUSE: Duration = Duration::from_secs(10);

/// Space reserved beside one database file.
#[derive(Debug)]
pub struct Reserve {
    folder: OwnedFd,
    wal: OsString,
    file: OsString,
    /// Whether everything is reserved, and the time of the last attempt.
    complete: bool,
    tried: Option<Instant>,
}

impl Reserve {
    /// For the database `name` in `folder`, an `O_PATH` descriptor. Allocates nothing yet.
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

    /// Removes the reserve file; `false` if there was none.
    pub fn release(&mut self) -> bool {
        self.complete = false;
        unlinkat(&self.folder, &self.file, AtFlags::empty()).is_ok()
    }

    /// Reserves the missing parts, at most once per [`PAUSE`]. A full disk is not an error.
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
            // As much as possible; the full reservation is retried later.
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

/// A file system without fallocate(2) has no reserve; a retry would not help.
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
    fn space_is_reserved_released_and_reserved_again() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, file) =
            (folder.path().join("banger.db-wal"), folder.path().join("banger.reserve"));
        std::fs::write(&wal, "x").unwrap();
        let mut reserve = reserve(folder.path());
        reserve.fill();
        let wal = std::fs::metadata(&wal).unwrap();
        assert_eq!(wal.len(), 1, "the length of the log is unchanged");
        assert!(wal.blocks() * 512 >= WAL_BYTES);
        assert!(std::fs::metadata(&file).unwrap().blocks() * 512 >= FILE_BYTES);
        assert!(reserve.release());
        assert!(!file.exists() && !reserve.release());
        reserve.fill();
        assert!(!file.exists(), "not immediately");
        reserve.tried = None;
        reserve.fill();
        assert!(file.exists());
    }
}
