//! Opening the database: the file and its mode, settings, checks, tables, pruning.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_api::{ApiError, ErrorCode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Mode, OFlags};

use crate::backup;
use crate::error::Place;
use crate::reserve::{CHUNK_BYTES, Reserve};
use crate::schema::{self, Found, SCHEMA_VERSION};
use crate::sys;
use crate::thread::Memory;

/// Time limit for a lock held by another program, such as an `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a path passed to SQLite unchanged. Its own limit of 512 bytes applies to the
/// path with links resolved and the suffix `-journal`.
const LONGEST_PLAIN_PATH: usize = 400;
/// Capacity of the statement cache; larger than the number of statements.
const STATEMENTS: usize = 32;

/// Opens a file, and creates it if it does not exist.
///
/// # Errors
/// Those of [`crate::Store::open`].
pub fn file(path: &Path) -> Result<Memory, ApiError> {
    let place = Place(path.display().to_string());
    let folder = folder_of(path).map_err(|error| place.explain_os(error))?;
    let name = path.file_name().unwrap_or(OsStr::new(schema::FILE_NAME));
    make_private(&folder, name).map_err(|error| place.explain_os(error))?;
    let again = folder.try_clone().map_err(|error| place.error_of(&error))?;
    let mut reserve = Reserve::new(again, name);
    let first = connect(path, &place, &folder, name);
    let db = match first {
        // SQLite extends `-shm` when it opens the database.
        Err(error) if error.code == ErrorCode::NoSpace && reserve.release() => {
            connect(path, &place, &folder, name)?
        }
        other => other?,
    };
    reserve.fill();
    Ok(Memory::new(db, place, Some((folder, reserve))))
}

fn connect(
    path: &Path,
    place: &Place,
    folder: &OwnedFd,
    name: &OsStr,
) -> Result<Connection, ApiError> {
    // No mutex is needed: the connection stays in its thread.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = if path.as_os_str().len() <= LONGEST_PLAIN_PATH {
        Connection::open_with_flags(path, flags)
    } else {
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        let vfs = sys::literal_paths().map_err(|error| place.explain(&error))?;
        Connection::open_with_flags_and_vfs(short, flags, vfs)
    };
    let mut db = db.map_err(|error| place.explain(&error))?;
    sys::grow_by(&db, CHUNK_BYTES).map_err(|error| place.explain(&error))?;
    if let Some(version) = prepare(&mut db, place)? {
        backup::take(&db, (folder, name), version).map_err(|error| place.not_copied(error))?;
    }
    begin(&mut db).map_err(|error| place.explain(&error))?;
    Ok(db)
}

/// Opens a database in memory.
///
/// # Errors
/// Errors of SQLite.
pub fn in_memory() -> Result<Memory, ApiError> {
    let place = Place(":memory:".into());
    let mut db = Connection::open_in_memory().map_err(|error| place.explain(&error))?;
    prepare(&mut db, &place)?;
    begin(&mut db).map_err(|error| place.explain(&error))?;
    Ok(Memory::new(db, place, None))
}

fn folder_of(path: &Path) -> rustix::io::Result<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder.unwrap_or(Path::new(".")), flags, Mode::empty())
}

/// Creates the file, or restricts its mode to 0600. SQLite creates `-wal` and `-shm` with the mode
/// of the database.
fn make_private(folder: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let ours = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(folder, name.as_bytes(), flags, ours)?;
    let others = Mode::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) & (Mode::RWXG | Mode::RWXO);
    if others.is_empty() { Ok(()) } else { rustix::fs::fchmod(&file, ours) }
}

/// Settings and checks; returns the version of tables that must be migrated.
fn prepare(db: &mut Connection, place: &Place) -> Result<Option<i64>, ApiError> {
    let found = configure(db).and_then(|()| schema::examine(db));
    match found.map_err(|error| place.explain(&error))? {
        Found::Usable => Ok(None),
        Found::Older(version) => Ok(Some(version)),
        Found::Newer(version) => Err(place.newer(version, SCHEMA_VERSION)),
        Found::Foreign => Err(place.foreign()),
    }
}

/// Settings of this connection; writes nothing.
fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.pragma_update(None, "foreign_keys", true)
}

fn begin(db: &mut Connection) -> rusqlite::Result<()> {
    // A file system without shared memory uses another journal mode, which is equally safe and
    // slower.
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // The schema and the first commits after a power loss are synced.
    db.pragma_update(None, "synchronous", "FULL")?;
    schema::migrate(db)
}
