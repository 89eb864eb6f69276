//! What is sent of a snapshot: packs of git objects, and an archive of files.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode};
use banger_archive::beneath::Folder;
use banger_archive::pack::{Devices, Packed, Top, pack_paths};

use crate::git::Git;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::store;

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

/// Packs these objects in a new folder of objects at `folder`, and returns the folder of the packs
/// ([`packs`] sends it). Each pack has its index beside it, which the guest would otherwise make by
/// unpacking everything once more.
///
/// # Errors
/// git's; the file system's.
pub fn to_files(
    repository: &Repository,
    objects: Vec<u8>,
    folder: &Path,
) -> Result<PathBuf, ApiError> {
    let made = store::objects(folder.to_owned(), &[&repository.objects()?])?;
    let packs = folder.join("pack");
    fs::create_dir_all(&packs).map_err(|error| store::of_file(&packs, &error))?;
    // Deltas that the repository has are used. The bytes that others would save cost more time than
    // their way to the guest.
    let fixed = ["-c", "pack.compression=1", "pack-objects", "-q", "--delta-base-offset"];
    let mut arguments: Vec<OsString> = fixed.map(OsString::from).into();
    arguments.push("--window=0".into());
    arguments.push(packs.join("pack").into());
    let mut running = made.used_by(repository.git()).stream(arguments, objects)?;
    // The names of the packs.
    io::copy(&mut running.stdout, &mut io::sink())
        .map_err(|error| store::of_file(&packs, &error))?;
    running.finish()?;
    Ok(packs)
}

/// Writes an archive of the packs in a folder. Its top folder is `.`.
///
/// # Errors
/// A file that cannot be read; the receiver's.
pub fn packs(folder: &Path, to: impl Write) -> Result<Packed, ApiError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let text = format!("packs in `{}` cannot be sent", folder.display());
        ApiError::new(ErrorCode::Internal, text).caused_by(error)
    };
    let entries = fs::read_dir(folder).map_err(|error| failed(&error))?;
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    let mut names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    names.retain(|name| name.ends_with(b".pack") || name.ends_with(b".idx"));
    // An index follows its pack.
    names.sort_unstable_by(|one, other| other.cmp(one));
    let opened = Folder::open(folder).map_err(|error| failed(&error))?;
    let top = Top { name: b".", path: folder.as_os_str().as_bytes() };
    pack_paths(&opened, names, top, Devices::LeaveOut, to).map_err(|error| failed(&error))
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
