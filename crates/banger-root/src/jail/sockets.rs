//! Sockets in a jail, whose folder its VMM can write to: a socket is opened without following a
//! link, looked at, and only then connected to through its descriptor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_base::VmId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::{API, HELLO, VSOCK, folder};
use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::words::{Did, VmmSocket};

/// How long a socket may be there before its VMM listens: bind(2) and listen(2) are two calls,
/// and a busy host may let others run between them.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

fn open_jail(root: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, root, flags, Mode::empty())
}

/// Connects to a socket of the VMM.
///
/// # Errors
/// It is not there, is no socket of this VM's, or nobody listens.
pub fn connect(places: &Places, vm: &VmId, socket: VmmSocket) -> Result<OwnedFd, RootError> {
    let name = match socket {
        VmmSocket::Api => API,
        VmmSocket::Vsock => VSOCK,
    };
    let root = folder::find(places, vm)?;
    let path = root.join(name);
    let at = |error: Errno| RootError::on_path("connect to", &path, &error.into());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat(open_jail(&root).map_err(at)?, name, flags, Mode::empty()).map_err(at)?;
    let stat = fstat(&socket).map_err(at)?;
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    if !is_socket || stat.st_uid != vm.uid() {
        let text = format!("`{}` is not a socket of this VM", path.display());
        return Err(RootError::new(Kind::Refused, text));
    }
    // unix(7) resolves this to the very inode that was looked at.
    let inode = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let deadline = Instant::now() + LISTENS_WITHIN;
    loop {
        match UnixStream::connect(&inode) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(LOOK_AGAIN);
            }
            connected => {
                let connected = connected.map(OwnedFd::from);
                return connected.map_err(|error| RootError::on_path("connect to", &path, &error));
            }
        }
    }
}

/// Removes the socket for the guest's hello.
///
/// # Errors
/// unlinkat(2).
pub fn close_hello(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let root = match folder::find(places, vm) {
        Err(error) if error.kind == Kind::NotFound => return Ok(Did::WasAbsent),
        found => found?,
    };
    let removed = open_jail(&root).and_then(|root| unlinkat(root, HELLO, AtFlags::empty()));
    match removed {
        Ok(()) => Ok(Did::Removed),
        Err(Errno::NOENT) => Ok(Did::WasAbsent),
        Err(error) => Err(RootError::on_path("remove", &root.join(HELLO), &error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn links_and_strangers_sockets_are_not_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { state: folder.path().into(), ..Places::default() };
        let vm: VmId = "0123456789ab".parse().unwrap();
        let root = places.jail("firecracker", &vm);
        std::fs::create_dir_all(&root).unwrap();
        let connect = || connect(&places, &vm, VmmSocket::Vsock);
        assert_eq!(connect().unwrap_err().kind, Kind::Internal);
        let elsewhere = folder.path().join("s");
        let _listener = banger_sys::unix_path::bind(&elsewhere).unwrap();
        symlink(&elsewhere, root.join(VSOCK)).unwrap();
        assert_eq!(connect().unwrap_err().kind, Kind::Refused);
        std::fs::remove_file(root.join(VSOCK)).unwrap();
        let _own = banger_sys::unix_path::bind(&root.join(VSOCK)).unwrap();
        assert_eq!(connect().unwrap_err().kind, Kind::Refused);
        lchown(root.join(VSOCK), Some(vm.uid()), None).unwrap();
        connect().unwrap();
        std::fs::remove_file(root.join(VSOCK)).unwrap();
        // Bound, and not listening yet.
        let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&bound, &SocketAddrUnix::new(root.join(VSOCK)).unwrap()).unwrap();
        lchown(root.join(VSOCK), Some(vm.uid()), None).unwrap();
        std::thread::scope(|scope| {
            let early = scope.spawn(connect);
            std::thread::sleep(Duration::from_millis(20));
            listen(&bound, 1).unwrap();
            early.join().unwrap().unwrap();
        });
        assert_eq!(close_hello(&places, &vm).unwrap(), Did::WasAbsent);
    }
}
