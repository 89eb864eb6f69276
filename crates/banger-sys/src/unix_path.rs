//! Unix sockets at paths of any length.
//!
//! `sun_path` holds 107 bytes (unix(7)). A socket is therefore named through a descriptor of its
//! folder: `/proc/self/fd/N/name` is short whatever the folder's own path is (proc(5)).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, listen, socket_with};

/// Connections that may wait to be accepted; the kernel lowers it to its own limit (listen(2)).
const BACKLOG: i32 = 4096;

/// Longest file name that still fits behind `/proc/self/fd/N/`.
const MAX_NAME: usize = 80;

fn open_parent(path: &Path) -> rustix::io::Result<OwnedFd> {
    let folder = match path.parent() {
        Some(folder) if folder != OsStr::new("") => folder,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, folder, flags, Mode::empty())
}

fn through_folder(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    if name.as_bytes().len() > MAX_NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "socket name too long"));
    }
    let folder = open_parent(path)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((folder, short))
}

/// Binds a listening socket that from its birth only its owner may connect to.
///
/// A socket file gets the mode of the socket's own inode less the umask (`unix_bind_bsd` of the
/// kernel), so that inode's mode is set first, and the umask of the process is left alone.
///
/// # Errors
/// fchmod(2), bind(2), listen(2); `AddrInUse` when there is a file of this name.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let (_folder, short) = through_folder(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket of a path of any length: unlinkat(2). One that is not there is removed.
///
/// # Errors
/// unlinkat(2).
pub fn remove(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = match open_parent(path) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Connects to a listening socket.
///
/// # Errors
/// connect(2).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_folder, short) = through_folder(path)?;
    UnixStream::connect(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};

    #[test]
    fn a_path_of_any_length_works() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(200)).join("e".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("v.sock_10789");
        let listener = bind(&path).unwrap();
        let mut client = connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn others_are_kept_out_whatever_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let before = rustix::process::umask(Mode::empty());
        let listener = bind(&path);
        rustix::process::umask(before);
        let _listener = listener.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_socket_is_removed_once_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(200)).join("e".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        remove(&path.join("of/nothing")).unwrap();
        assert!(!path.exists());
        assert!(remove(&deep).is_err(), "a folder is not a socket");
    }
}
