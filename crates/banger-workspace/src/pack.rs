//! The streams of a snapshot: a pack of git objects, and an archive of files.

use std::collections::HashSet;
use std::io::Write;

use banger_api::{ApiError, ErrorCode};
use banger_archive::beneath::Folder;
use banger_archive::pack::{Devices, Packed, Top, pack_paths};

use crate::git::{Git, Running};
use crate::repository::Repository;
use crate::snapshot::Snapshot;

/// The objects of a snapshot: of its commits, and of its index.
///
/// # Errors
/// git's; a partial clone that lacks an object.
pub fn objects(git: &Git, snapshot: &Snapshot) -> Result<Vec<u8>, ApiError> {
    let commits: Vec<&str> =
        snapshot.head.iter().chain(&snapshot.other_heads).map(String::as_str).collect();
    let mut list = match commits.as_slice() {
        [] => Vec::new(),
        commits => {
            git.output([&["rev-list", "--objects", "--no-walk"], commits, &["--"]].concat())?
        }
    };
    let id = |line: &[u8]| line.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
    let mut known: HashSet<Vec<u8>> = list.split(|byte| *byte == b'\n').map(id).collect();
    for entry in snapshot.index.iter().filter(|entry| !entry.is_submodule()) {
        if known.insert(entry.object().to_vec()) {
            list.extend_from_slice(entry.object());
            list.push(b'\n');
        }
    }
    Ok(list)
}

/// A pack (gitformat-pack(5)) of these objects.
///
/// # Errors
/// git's.
pub fn pack(git: &Git, objects: Vec<u8>) -> Result<Running, ApiError> {
    git.stream(&["pack-objects", "--stdout", "-q", "--delta-base-offset"], objects)
}

/// Writes an archive of the files that differ from the index. Its top folder is `.`.
///
/// # Errors
/// A file that cannot be read; the receiver's.
pub fn files(
    repository: &Repository,
    snapshot: &Snapshot,
    to: impl Write,
) -> Result<Packed, ApiError> {
    let top = repository.top();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let text = format!("files of `{}` cannot be packed", top.display());
        ApiError::new(ErrorCode::BadRequest, text).caused_by(error)
    };
    let folder = Folder::open(top).map_err(|error| failed(&error))?;
    let shown = top.as_os_str().as_encoded_bytes();
    let names = Top { name: b".", path: shown };
    pack_paths(&folder, snapshot.files(), names, Devices::LeaveOut, to)
        .map_err(|error| failed(&error))
}
