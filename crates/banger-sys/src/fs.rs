//! File operations in folders that an untrusted process can also write to.
//!
//! All operations are relative to a folder descriptor and never follow a planted link: openat(2)
//! with O_NOFOLLOW and O_EXCL, openat2(2) with RESOLVE_BENEATH.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

/// Number of attempts when another process keeps changing the folder.
const TRIES: usize = 8;
/// Mode of created files.
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);

/// Whether a file survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The file may be lost as a whole if the host loses power.
    Cached,
    /// The file is on disk when the call returns: fsync(2) on file and folder.
    Synced,
}

/// Whether symbolic links within a path are followed; they never lead out of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Links are followed if they stay beneath the folder.
    FollowBeneath,
    /// Any link is an error.
    Refuse,
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// A file name without a path separator.
fn plain(name: &str) -> io::Result<&str> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == OsStr::new(name) => Ok(name),
        _ => Err(invalid("not a plain file name")),
    }
}

/// Opens a folder.
///
/// # Errors
/// openat(2).
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(Into::into)
}

fn remove_if_there(folder: impl AsFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, socket or link of a folder. Succeeds if it does not exist.
///
/// # Errors
/// unlinkat(2); a name with a path separator.
pub fn remove(folder: impl AsFd, name: &str) -> io::Result<()> {
    remove_if_there(folder, plain(name)?)
}

/// Replaces a file of mode 0600 atomically: writes a new file beside it, then renameat(2).
///
/// # Errors
/// openat(2), write(2), fsync(2), renameat(2); a name with a path separator.
pub fn write_atomically(
    folder: impl AsFd,
    name: &str,
    bytes: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let staged = format!(".{}.new", plain(name)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = None;
    for _ in 0..TRIES {
        // Left by an interrupted attempt, or planted.
        remove_if_there(&folder, &staged)?;
        match openat(&folder, &staged, flags, OWN) {
            Ok(opened) => {
                file = Some(File::from(opened));
                break;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut file = file.ok_or(io::ErrorKind::AlreadyExists)?;
    let written = file.write_all(bytes).and_then(|()| match durability {
        Durability::Cached => Ok(()),
        Durability::Synced => file.sync_all(),
    });
    let placed =
        written.and_then(|()| renameat(&folder, &staged, &folder, name).map_err(Into::into));
    if let Err(error) = placed {
        // Report the first error, not that of the cleanup.
        let _ = remove_if_there(&folder, &staged);
        return Err(error);
    }
    match durability {
        Durability::Cached => Ok(()),
        Durability::Synced => rustix::fs::fsync(&folder).map_err(Into::into),
    }
}

/// Opens a log for appending: a regular file with one link, owned by this process's user or by
/// `reader`. Anything else at that name is removed and replaced by a new file of mode 0600, which
/// is given to `reader` if there is one; the reader must then not have write access to the folder.
///
/// # Errors
/// openat(2), fstat(2), unlinkat(2), fchown(2); another process re-creates the obstacle faster than
/// it is removed.
pub fn open_log(folder: impl AsFd, name: &str, reader: Option<u32>) -> io::Result<File> {
    let file = open_own(folder, name, reader)?;
    if let Some(uid) = reader {
        std::os::unix::fs::fchown(&file, Some(uid), None)?;
    }
    Ok(file)
}

fn open_own(folder: impl AsFd, name: &str, reader: Option<u32>) -> io::Result<File> {
    let name = plain(name)?;
    let base = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match openat(&folder, name, base | OFlags::CREATE | OFlags::EXCL, OWN) {
            Ok(made) => return Ok(File::from(made)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // O_NONBLOCK: opening a FIFO must not wait for a reader.
        match openat(&folder, name, base | OFlags::NONBLOCK, Mode::empty()) {
            Ok(there) if is_own_file(&there, reader)? => {
                rustix::fs::fcntl_setfl(&there, OFlags::APPEND)?;
                return Ok(File::from(there));
            }
            // Another user's file, a link, a FIFO without a reader, a socket, removed, or
            // unreadable.
            Ok(_)
            | Err(Errno::LOOP | Errno::NXIO | Errno::NOENT | Errno::ACCESS | Errno::NODEV) => {
                remove_if_there(&folder, name)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn is_own_file(file: impl AsFd, reader: Option<u32>) -> io::Result<bool> {
    let stat = fstat(file)?;
    let owners = [Some(rustix::process::geteuid().as_raw()), reader];
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && owners.contains(&Some(stat.st_uid))
        && stat.st_nlink == 1)
}

/// Opens a relative path beneath a folder: openat2(2) with RESOLVE_BENEATH, so neither `..` nor a
/// link leads out of it, and without following links of /proc. Close-on-exec.
///
/// # Errors
/// openat2(2): `EXDEV` for a path that leads out, `ELOOP` for a refused link.
pub fn open_beneath(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    links: Links,
) -> io::Result<File> {
    let resolve = match links {
        Links::FollowBeneath => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    };
    let mode = if flags.contains(OFlags::CREATE) { OWN } else { Mode::empty() };
    for _ in 0..TRIES {
        match openat2(&folder, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Ok(file) => return Ok(File::from(file)),
            // A component was renamed during the lookup.
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::AGAIN.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        let fd = open_folder(folder.path()).unwrap();
        (folder, fd)
    }

    #[test]
    fn write_atomically_replaces_the_file() {
        let (folder, fd) = folder();
        for (text, durability) in [("one", Durability::Cached), ("two", Durability::Synced)] {
            write_atomically(&fd, "a", text.as_bytes(), durability).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), text);
        }
        let mode = fs::metadata(folder.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        for name in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(write_atomically(&fd, name, b"x", Durability::Cached).is_err(), "{name}");
        }
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let (folder, fd) = folder();
        fs::create_dir(folder.path().join("a")).unwrap();
        assert!(write_atomically(&fd, "a", b"x", Durability::Cached).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_are_replaced_not_followed() {
        let (folder, fd) = folder();
        let victim = folder.path().join("victim");
        fs::write(&victim, "safe").unwrap();
        for name in ["a", ".a.new", "log"] {
            symlink(&victim, folder.path().join(name)).unwrap();
        }
        write_atomically(&fd, "a", b"x", Durability::Cached).unwrap();
        open_log(&fd, "log", None).unwrap().write_all(b"x").unwrap();
        fs::hard_link(&victim, folder.path().join("second")).unwrap();
        open_log(&fd, "second", None).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
        for name in ["a", "log", "second"] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "x", "{name}");
        }
    }

    #[test]
    fn open_log_appends_and_does_not_block_on_a_fifo() {
        let (folder, fd) = folder();
        for _ in 0..2 {
            open_log(&fd, "log", None).unwrap().write_all(b"x").unwrap();
        }
        assert_eq!(fs::read(folder.path().join("log")).unwrap(), b"xx");
        rustix::fs::mknodat(&fd, "fifo", FileType::Fifo, OWN, 0).unwrap();
        open_log(&fd, "fifo", None).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs::read(folder.path().join("fifo")).unwrap(), b"x");
    }

    #[test]
    fn open_beneath_does_not_leave_the_folder() {
        let (outside, _) = folder();
        let (folder, fd) = folder();
        fs::write(outside.path().join("secret"), "x").unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        symlink(outside.path(), folder.path().join("out")).unwrap();
        symlink("file", folder.path().join("in")).unwrap();
        let open = |path: &str, links| {
            open_beneath(&fd, Path::new(path), OFlags::RDONLY, links).map_err(|error| error.kind())
        };
        assert!(open("file", Links::Refuse).is_ok());
        assert!(open("in", Links::FollowBeneath).is_ok());
        assert!(open("in", Links::Refuse).is_err());
        for path in ["out/secret", "../x", "/etc/passwd"] {
            assert!(open(path, Links::FollowBeneath).is_err(), "{path}");
        }
        let made = OFlags::CREATE | OFlags::WRONLY;
        open_beneath(&fd, Path::new("new"), made, Links::Refuse).unwrap();
        let mode = fs::metadata(folder.path().join("new")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
