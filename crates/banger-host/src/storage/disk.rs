//! Disks in regular files: created under another name and renamed, so that an incomplete file is
//! never used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::drivers::{Applied, Undone};
use banger_sys::sparse::{self, Cloned};

use super::reflink;
use crate::failure::on_path;

/// Creates a folder with mode 0700.
///
/// # Errors
/// mkdir(2).
pub fn make_folder(path: &Path) -> Result<Applied, ApiError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(Applied::Created),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Applied::AlreadyThere),
        Err(error) => Err(on_path("make the folder", path, &error)),
    }
}

/// Removes a folder with its content; follows no links.
///
/// # Errors
/// A file or folder cannot be removed.
pub fn remove_folder(path: &Path) -> Result<Undone, ApiError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::WasAbsent),
        Err(error) => Err(on_path("remove the folder", path, &error)),
    }
}

/// Removes a file, and an incomplete one that a crash left.
///
/// # Errors
/// unlink(2).
pub fn remove(path: &Path) -> Result<Undone, ApiError> {
    remove_file(&partial(path))?;
    remove_file(path)
}

fn remove_file(path: &Path) -> Result<Undone, ApiError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::WasAbsent),
        Err(error) => Err(on_path("remove", path, &error)),
    }
}

fn partial(path: &Path) -> std::path::PathBuf {
    path.with_extension("partial")
}

/// Creates a sparse copy of `source` with `size` bytes.
///
/// # Errors
/// The source cannot be read, or the target cannot be written; the incomplete target is removed.
pub fn copy_of(source: &Path, target: &Path, size: u64) -> Result<Applied, ApiError> {
    from(source, target, |from, to| {
        sparse::copy(from, to)?;
        to.set_len(size)
    })
}

/// Creates a clone of `source` with `size` bytes that shares its blocks (FICLONE).
///
/// # Errors
/// `HostNotReady` if source and target cannot share blocks; otherwise as [`copy_of`].
pub fn clone_of(source: &Path, target: &Path, size: u64) -> Result<Applied, ApiError> {
    let mut cloned = Cloned::Shared;
    let made = from(source, target, |from, to| {
        cloned = sparse::clone(from, to)?;
        match cloned {
            Cloned::Shared => sparse::extend(to, size),
            Cloned::CannotShare => Err(io::ErrorKind::Unsupported.into()),
        }
    });
    made.map_err(|error| match cloned {
        Cloned::Shared => error,
        Cloned::CannotShare => {
            let folder = |path: &Path| path.parent().unwrap_or(path).to_owned();
            let why = reflink::why_not(&folder(source), &folder(target));
            ApiError::new(ErrorCode::HostNotReady, format!("cannot clone the image: {why}"))
                .with_hint(Hint::Configure { key: "storage".into(), value: Some("auto".into()) })
        }
    })
}

/// Creates a clone of `source` with `size` bytes, or a sparse copy where blocks cannot be shared.
///
/// # Errors
/// As [`copy_of`].
pub fn clone_or_copy_of(source: &Path, target: &Path, size: u64) -> Result<Applied, ApiError> {
    match clone_of(source, target, size) {
        Err(error) if error.code == ErrorCode::HostNotReady => copy_of(source, target, size),
        made => made,
    }
}

fn from(
    source: &Path,
    target: &Path,
    fill: impl FnOnce(&File, &File) -> io::Result<()>,
) -> Result<Applied, ApiError> {
    if target.exists() {
        return Ok(Applied::AlreadyThere);
    }
    let from = File::open(source).map_err(|error| on_path("open", source, &error))?;
    make(target, |to| fill(&from, to))
}

/// Creates a file, which gets its name when it is complete.
///
/// # Errors
/// The file cannot be created, filled or renamed; the incomplete file is removed.
pub fn make(
    target: &Path,
    fill: impl FnOnce(&File) -> io::Result<()>,
) -> Result<Applied, ApiError> {
    if target.exists() {
        return Ok(Applied::AlreadyThere);
    }
    let staged = partial(target);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .map_err(|error| on_path("create", &staged, &error))?;
    match fill(&file).and_then(|()| fs::rename(&staged, target)) {
        Ok(()) => Ok(Applied::Created),
        Err(error) => {
            // The incomplete file uses space; the first error is reported.
            let _ = fs::remove_file(&staged);
            Err(on_path("write the disk", target, &error))
        }
    }
}

/// Writes a new file and its name to stable storage (fsync(2)).
///
/// # Errors
/// The file or its folder cannot be synced.
pub fn sync(path: &Path) -> Result<(), ApiError> {
    let synced = |path: &Path| File::open(path)?.sync_all();
    synced(path)
        .and_then(|()| path.parent().map_or(Ok(()), synced))
        .map_err(|error| on_path("sync", path, &error))
}

/// Gives `new` the name of `target`, whose old file is removed (rename(2)). Without `new`, `target`
/// must exist.
///
/// # Errors
/// The file cannot be renamed.
pub fn replace(new: &Path, target: &Path) -> Result<Applied, ApiError> {
    match fs::rename(new, target) {
        Ok(()) => sync(target).map(|()| Applied::Created),
        Err(error) if error.kind() == io::ErrorKind::NotFound && target.exists() => {
            Ok(Applied::AlreadyThere)
        }
        Err(error) => Err(on_path("replace the disk", target, &error)),
    }
}

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Makes a disk at least `size` bytes long; the new part is sparse. A longer disk stays as it is.
pub fn grow(path: &Path, size: u64) -> Result<Applied, ApiError> {
    let disk = OpenOptions::new().write(true).custom_flags(NOFOLLOW).open(path);
    let disk = disk.map_err(|error| on_path("open", path, &error))?;
    let error = |error: io::Error| on_path("grow the disk", path, &error);
    if disk.metadata().map_err(error)?.len() >= size {
        return Ok(Applied::AlreadyThere);
    }
    disk.set_len(size).map_err(error)?;
    Ok(Applied::Created)
}

/// Allocated bytes of a file.
///
/// # Errors
/// stat(2).
pub fn allocated(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}

/// Allocated bytes of a file that are not shared with other files (FIEMAP).
///
/// # Errors
/// The file cannot be opened or queried.
pub fn own(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    match banger_sys::reflink::share(&file) {
        Ok(share) => Ok(share.own),
        // A file system without FIEMAP does not share blocks.
        Err(_) => sparse::allocated_bytes(&file),
    }
}
