//! The ends of a copy: the file that is packed, and the folder and name that an archive is unpacked
//! to, by the rules of `cp -r` (docs/cp.md).
//!
//! Symlinks on the way to either are followed, since the path is the caller's own. A symlink at the
//! end of a target is followed to a folder only; one to a file is replaced.

use std::os::fd::OwnedFd;

use rustix::fs::{self, FileType, Mode, OFlags};

use crate::beneath::{Folder, Links, split_last};
use crate::failure::{Cause, Failure, shown};

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A file, a symlink or a named pipe.
    File,
    /// A folder under a name of its own.
    Folder,
    /// The content of a folder, or an archive: several names.
    Contents,
}

impl Source {
    /// The name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Contents => "contents",
        }
    }

    /// The source with this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::File, Self::Folder, Self::Contents]
            .into_iter()
            .find(|source| source.as_str().as_bytes() == name)
    }
}

/// Whether a symlink at the end of the source is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    /// Its target is copied.
    Follow,
    /// The symlink is copied.
    Keep,
}

/// Where an archive goes.
pub struct Place {
    /// The folder to unpack into.
    pub folder: Folder,
    /// Name in that folder for the archive's top entry; absent for [`Source::Contents`].
    pub name: Option<Vec<u8>>,
}

/// Opens the file or folder that is to be copied; `root` is the folder that paths begin in, or else
/// the caller's own.
///
/// # Errors
/// Missing, denied; neither a file nor a folder.
pub fn source(
    root: Option<&Folder>,
    path: &[u8],
    last: LastLink,
) -> Result<(OwnedFd, Source), Failure> {
    let flags = match last {
        LastLink::Follow => OFlags::PATH,
        LastLink::Keep => OFlags::PATH | OFlags::NOFOLLOW,
    };
    let failed = |error| cannot_open(path, error);
    let file = open(root, path, flags).map_err(failed)?;
    let stat = fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
    let source = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if contents(path) => Source::Contents,
        FileType::Directory => Source::Folder,
        FileType::RegularFile | FileType::Symlink | FileType::Fifo => Source::File,
        _ => return Err(conflict(path, "is neither a file nor a folder")),
    };
    Ok((file, source))
}

/// The name that a source has in an archive and in a folder: the last part of its path, or `.` for
/// the content of a folder.
pub fn name(path: &[u8]) -> &[u8] {
    match split_last(path) {
        Some((_, name)) if !contents(path) => name,
        _ => b".",
    }
}

/// Whether a path names the content of a folder: `/`, or with `.` or `..` at its end.
fn contents(path: &[u8]) -> bool {
    split_last(path).is_none_or(|(_, name)| name == b"." || name == b"..")
}

/// Finds the place for a copy of `source`, called `name`, at `path`. The folder for
/// [`Source::Contents`] is made where it is missing.
///
/// # Errors
/// The parent is missing, denied; a file is where a folder must be, or a device.
pub fn target(
    root: Option<&Folder>,
    path: &[u8],
    source: Source,
    name: &[u8],
) -> Result<Place, Failure> {
    let is_folder_path = path.ends_with(b"/") || contents(path);
    let found = match open(root, path, OFlags::PATH) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if source == Source::File && is_folder_path {
                return Err(cannot_open(path, error));
            }
            return missing(root, path, source);
        }
        Err(error) => return Err(cannot_open(path, error)),
    };
    let stat = fs::fstat(&found).map_err(|errno| cannot_open(path, errno.into()))?;
    match (FileType::from_raw_mode(stat.st_mode), source) {
        (FileType::Directory, Source::Contents) => {
            Ok(Place { folder: Folder::from_fd(found), name: None })
        }
        (FileType::Directory, _) => {
            let folder = Folder::from_fd(found);
            let inner = [path, b"/", name].concat();
            check_replaced(&folder, name, &inner, source)?;
            Ok(Place { folder, name: Some(name.to_vec()) })
        }
        (FileType::RegularFile, Source::File) => beside(root, path),
        (FileType::RegularFile, _) => Err(conflict(path, "is a file, not a folder")),
        _ => Err(conflict(path, "is neither a file nor a folder")),
    }
}

/// The parent of `path`, and the name in it.
fn beside(root: Option<&Folder>, path: &[u8]) -> Result<Place, Failure> {
    let (parent, name) = split_last(path).ok_or_else(|| conflict(path, "is no name"))?;
    let parent: &[u8] = match parent {
        b"" if path.starts_with(b"/") => b"/",
        b"" => b".",
        parent => parent,
    };
    let folder = open(root, parent, OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|error| cannot_open(parent, error))?;
    Ok(Place { folder: Folder::from_fd(folder), name: Some(name.to_vec()) })
}

/// The place for a target that is not there.
fn missing(root: Option<&Folder>, path: &[u8], source: Source) -> Result<Place, Failure> {
    let trimmed = path.strip_suffix(b"/.").unwrap_or(path);
    let place = beside(root, trimmed)?;
    let (Source::Contents, Some(name)) = (source, &place.name) else { return Ok(place) };
    let made = fs::mkdirat(&place.folder, name.as_slice(), Mode::from_raw_mode(0o755));
    let folder = match made {
        Ok(()) => place.folder.folder(name, Links::Refuse),
        Err(errno) => Err(errno.into()),
    };
    let folder = folder
        .map_err(|error| Failure::file(format!("cannot make folder `{}`", shown(path)), error))?;
    Ok(Place { folder, name: None })
}

/// Refuses to replace a folder by a file, and a device or socket by anything.
fn check_replaced(
    folder: &Folder,
    name: &[u8],
    path: &[u8],
    source: Source,
) -> Result<(), Failure> {
    match (folder.kind_of(name), source) {
        (None | Some(FileType::Symlink), _) => Ok(()),
        (Some(FileType::RegularFile | FileType::Fifo), Source::File) => Ok(()),
        (Some(FileType::RegularFile | FileType::Fifo), _) => {
            Err(conflict(path, "is a file, not a folder"))
        }
        (Some(FileType::Directory), Source::File) => Err(conflict(path, "is a folder, not a file")),
        (Some(FileType::Directory), _) => Ok(()),
        _ => Err(conflict(path, "is neither a file nor a folder")),
    }
}

fn open(root: Option<&Folder>, path: &[u8], flags: OFlags) -> std::io::Result<OwnedFd> {
    let Some(root) = root else {
        return Ok(fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?);
    };
    root.open_beneath(path, flags, Links::Inside)
}

fn cannot_open(path: &[u8], error: std::io::Error) -> Failure {
    let shown = shown(path);
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message = format!("there is no file or folder `{shown}`");
            Failure { cause: Cause::Missing, message, source: None }
        }
        _ => Failure::file(format!("cannot open `{shown}`"), error),
    }
}

fn conflict(path: &[u8], what: &str) -> Failure {
    let message = format!("`{}` {what}", shown(path));
    Failure { cause: Cause::Conflict, message, source: None }
}

#[cfg(test)]
mod tests;
