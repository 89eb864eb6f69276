//! A copy of the database before its tables are migrated: `banger.db.v3`, the tables of version 3.
//!
//! An earlier banger refuses a migrated database. With its own copy in the place of `banger.db` it
//! works again, as far as the copy is still true.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rusqlite::Connection;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Copies a database of an earlier version. A copy that exists is replaced: it is of an earlier
/// migration, which an earlier banger undid.
///
/// `name` is that of the database in `folder`.
///
/// # Errors
/// Those of `VACUUM INTO` (SQLite's documentation of VACUUM), openat(2), fsync(2) and renameat(2).
pub fn take(
    db: &Connection,
    (folder, name): (&OwnedFd, &OsStr),
    version: i64,
) -> Result<(), BackupError> {
    let with = |suffix: String| -> OsString {
        let mut name = name.to_owned();
        name.push(suffix);
        name
    };
    let (copy, staged) = (with(format!(".v{version}")), with(format!(".v{version}.new")));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match unlinkat(folder, &staged, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    // SQLite would create it with the mode that the umask leaves.
    let file = openat(folder, &staged, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
    // Through the folder's descriptor: SQLite takes text, and the folder may have any bytes.
    let odd = || io::Error::from(Errno::ILSEQ);
    let target = staged.to_str().ok_or_else(odd)?;
    let target = format!("/proc/self/fd/{}/{target}", folder.as_raw_fd());
    db.execute("VACUUM INTO ?1", [target])?;
    fsync(&file).map_err(io::Error::from)?;
    renameat(folder, &staged, folder, &copy).map_err(io::Error::from)?;
    Ok(())
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
