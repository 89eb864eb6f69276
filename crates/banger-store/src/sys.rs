//! Two features that SQLite offers to C only: a file control for the growth of the database, and
//! opening a database through a folder's descriptor.
//!
//! SQLite limits a path to 512 bytes after resolving links, so `/proc/self/fd/N/banger.db` would be
//! replaced by the long path. The VFS of this module is the default one
//! (<https://www.sqlite.org/vfs.html>) except for `xFullPathname`, which returns its argument.

#![expect(unsafe_code, reason = "SQLite's VFS is a C structure of function pointers")]

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use rusqlite::{Connection, ffi};

const NAME: &CStr = c"banger-literal-paths";

/// Makes the database grow by `chunk_bytes` at a time (`SQLITE_FCNTL_CHUNK_SIZE`,
/// <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>).
///
/// # Errors
/// Errors of SQLite.
pub fn grow_by(db: &Connection, mut chunk_bytes: c_int) -> rusqlite::Result<()> {
    let chunk = (&raw mut chunk_bytes).cast();
    let control = ffi::SQLITE_FCNTL_CHUNK_SIZE;
    // SAFETY: the connection is open while it is borrowed, and the control reads one `int`.
    let code = unsafe { ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), control, chunk) };
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// Name of the VFS, registered on first use.
///
/// # Errors
/// SQLite rejects the VFS.
pub fn literal_paths() -> rusqlite::Result<&'static CStr> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match *REGISTERED.get_or_init(register) {
        ffi::SQLITE_OK => Ok(NAME),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

fn register() -> c_int {
    // SAFETY: a null name requests the default VFS, which lives as long as the program; SQLite
    // initialises itself on the first call.
    let standard = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if standard.is_null() {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: not null, valid for the life of the program, and not written to after registration.
    // Its methods use `pAppData`, which is copied with it.
    let mut vfs = unsafe { *standard };
    vfs.zName = NAME.as_ptr();
    vfs.pNext = std::ptr::null_mut();
    vfs.xFullPathname = Some(as_it_is);
    // SAFETY: the structure is leaked, because SQLite keeps the pointer; it does not become the
    // default.
    unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0) }
}

/// `xFullPathname`: copies `path` with its terminator into `out` of `size` bytes.
unsafe extern "C" fn as_it_is(
    _vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a zero-terminated string.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if usize::try_from(size).is_ok_and(|size| bytes.len() <= size) {
        // SAFETY: `out` has `size` bytes, at least as many as are copied, and does not overlap
        // `path`.
        unsafe { std::ptr::copy_nonoverlapping(path, out, bytes.len()) };
        return ffi::SQLITE_OK;
    }
    ffi::SQLITE_CANTOPEN
}
