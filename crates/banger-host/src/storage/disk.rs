//! Disks in ordinary files: made under another name and renamed, so that a half-made one is never
//! taken for whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use banger_api::ApiError;
use banger_engine::drivers::{Applied, Undone};

use crate::failure::on_path;

/// Makes a folder that only its owner may look into.
pub fn make_folder(path: &Path) -> Result<Applied, ApiError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(Applied::Created),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Applied::AlreadyThere),
        Err(error) => Err(on_path("make the folder", path, &error)),
    }
}

/// Removes a folder with everything in it, never following a link out of it.
pub fn remove_folder(path: &Path) -> Result<Undone, ApiError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::WasAbsent),
        Err(error) => Err(on_path("remove the folder", path, &error)),
    }
}

/// Removes a file and what a crash may have left of its making.
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

/// Makes a sparse copy of `source`, `size` bytes long.
pub fn copy_of(source: &Path, target: &Path, size: u64) -> Result<Applied, ApiError> {
    if target.exists() {
        return Ok(Applied::AlreadyThere);
    }
    let staged = partial(target);
    let from = File::open(source).map_err(|error| on_path("open", source, &error))?;
    let to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .map_err(|error| on_path("create", &staged, &error))?;
    let made = banger_sys::sparse::copy(&from, &to).and_then(|_| to.set_len(size));
    let made = made.and_then(|()| fs::rename(&staged, target));
    match made {
        Ok(()) => Ok(Applied::Created),
        Err(error) => {
            // The half-made file takes room that somebody needs; the first error is what counts.
            let _ = fs::remove_file(&staged);
            Err(on_path("write the disk", target, &error))
        }
    }
}

/// Bytes a file really takes.
pub fn allocated(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}
