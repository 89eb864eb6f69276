//! Unix sockets at paths of any length.
//!
//! `sun_path` holds 107 bytes (unix(7)). Sockets are therefore addressed through a descriptor of
//! their folder: `/proc/self/fd/N/name` is short for any folder path (proc(5)).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, listen, socket_with};

/// Length of the accept queue; the kernel lowers it to its own limit (listen(2)).
const BACKLOG: i32 = 4096;

/// Maximum length of a file name behind `/proc/self/fd/N/`.
const MAX_NAME: usize = 80;
/// Pause between attempts to connect.
pub const RETRY_PAUSE: Duration = Duration::from_millis(1);

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

/// Binds a listening socket that only its owner can connect to, from the moment it exists.
///
/// A socket file gets the mode of the socket's own inode minus the umask (`unix_bind_bsd` of the
/// kernel). The function sets the mode of that inode before bind(2) and does not change the umask
/// of the process.
///
/// # Errors
/// fchmod(2), bind(2), listen(2); `AddrInUse` if a file with this name exists.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    bind_with_mode(path, Mode::RUSR | Mode::WUSR)
}

/// As [`bind`], with these permissions minus the umask. Connecting requires write permission.
///
/// # Errors
/// Those of [`bind`].
pub fn bind_with_mode(path: &Path, mode: Mode) -> io::Result<UnixListener> {
    let (_folder, short) = through_folder(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, mode)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket at a path of any length: unlinkat(2). Succeeds if it does not exist.
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

/// Connects to a listening socket without waiting. The stream is in blocking mode.
///
/// # Errors
/// Those of [`connect_until`]; `WouldBlock` at once if the accept queue is full.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_until(path, Instant::now(), NotListening::Fail)
}

/// As [`connect`]; the socket must belong to `owner`, a uid.
///
/// # Errors
/// Those of [`connect`]; `PermissionDenied` if the file is not a socket of this owner.
pub fn connect_owned(path: &Path, owner: u32) -> io::Result<UnixStream> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let denied = || {
        let text = format!("it is not a socket of uid {owner}");
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    };
    let socket = open_socket(open_parent(path)?, name).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => denied(),
        _ => error,
    })?;
    if fstat(&socket)?.st_uid != owner {
        return Err(denied());
    }
    connect_inode(&socket, Instant::now(), NotListening::Fail)
}

/// How a connection attempt treats a socket that is bound and does not listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotListening {
    /// It fails at once: the process that bound the socket is gone.
    Fail,
    /// It is repeated until the deadline: bind(2) and listen(2) are two calls.
    Retry,
}

/// Connects to a socket that an untrusted process owns: never blocks past the deadline, and does
/// not follow a link in place of the socket. The stream is in blocking mode.
///
/// # Errors
/// `WouldBlock` if the accept queue was full until the deadline; `InvalidInput` if the file is not
/// a socket; openat(2), connect(2).
pub fn connect_until(
    path: &Path,
    deadline: Instant,
    not_listening: NotListening,
) -> io::Result<UnixStream> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    connect_inode(&open_socket(open_parent(path)?, name)?, deadline, not_listening)
}

/// Opens a socket file (`O_PATH`) of a folder without following a link.
///
/// # Errors
/// `InvalidInput` if the file is not a socket; openat(2).
pub fn open_socket(folder: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat(folder, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket"));
    }
    Ok(socket)
}

/// As [`connect_until`], for a socket file that is open already.
///
/// # Errors
/// `WouldBlock` if the accept queue was full until the deadline; connect(2).
pub fn connect_inode(
    socket: impl AsFd,
    deadline: Instant,
    not_listening: NotListening,
) -> io::Result<UnixStream> {
    // unix(7) resolves this path to the open inode.
    let inode = format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd());
    let address = SocketAddrUnix::new(inode.as_str())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        // A non-blocking connect(2) of a Unix socket completes or fails immediately.
        let error = match rustix::net::connect(&stream, &address) {
            Ok(()) => {
                let stream = UnixStream::from(stream);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::INTR) => continue,
            Err(error) => error,
        };
        let transient = match error {
            Errno::AGAIN => true,
            Errno::CONNREFUSED => not_listening == NotListening::Retry,
            _ => false,
        };
        if !transient || Instant::now() >= deadline {
            return Err(error.into());
        }
        std::thread::sleep(RETRY_PAUSE);
    }
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
    fn connect_owned_refuses_links_and_sockets_of_other_users() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = bind(&path).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        connect_owned(&path, uid).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, owner) in [(&link, uid), (&file, uid), (&path, uid + 1)] {
            let error = connect_owned(path, owner).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
        }
        let absent = connect_owned(&folder.path().join("absent"), uid).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_mode_of_a_socket_does_not_depend_on_the_umask() {
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
    fn remove_is_idempotent() {
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

    #[test]
    fn a_full_accept_queue_is_an_error_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let soon = || Instant::now() + Duration::from_millis(20);
        let listener = bind(&path).unwrap();
        // listen(2) again shortens the queue of a socket that accepts nothing.
        listen(&listener, 1).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match connect_until(&path, soon(), NotListening::Retry) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(waiting.len(), 2);
        // Waits for space in the queue until the deadline.
        let later = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| connect_until(&path, later, NotListening::Fail));
            listener.accept().unwrap();
            patient.join().unwrap().unwrap();
        });
        let link = folder.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::write(folder.path().join("f"), "").unwrap();
        for other in [link, folder.path().join("f")] {
            let error = connect_until(&other, later, NotListening::Retry).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}", other.display());
        }
        drop(listener);
        let error = connect_until(&path, later, NotListening::Fail).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
