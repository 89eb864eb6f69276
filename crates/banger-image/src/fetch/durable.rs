//! Files and folders of a store that survive a power loss.

use std::fs;
use std::path::Path;

use super::{FetchError, PathContext};

/// Names of the entries of a folder; those that are not UTF-8 are no names of a store.
pub(super) fn list_folder(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Writes a file that only its owner may read: open(2), write(2), fsync(2).
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).at("create", path)?;
    file.write_all(bytes).at("write", path)?;
    file.sync_all().at("write", path)
}

/// Syncs a folder and its content to disk, so that a name never refers to incomplete data.
pub(super) fn sync_all(path: &Path) -> Result<(), FetchError> {
    if path.is_dir() {
        for name in list_folder(path) {
            sync_all(&path.join(name))?;
        }
    }
    sync(path)
}

/// Syncs a file or a folder: fsync(2).
pub(super) fn sync(folder: &Path) -> Result<(), FetchError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).at("write", folder)
}
