//! Sockets in a jail, whose folder is writable for its VMM: a socket is opened without following
//! links, checked, and connected to through its descriptor, in bounded time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_base::{HostHint, VmId};
use banger_sys::unix_path::{NotListening, connect_inode, open_socket};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::{API, HELLO, VSOCK, folder};
use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::{Did, VmmSocket};

/// Time limit for a VMM to go from bind(2) to listen(2), and for a full accept queue to drain on a
/// busy host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn open_jail(root: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, root, flags, Mode::empty())
}

/// Connects to a socket of the VMM.
///
/// # Errors
/// `Refused` if the file is not a socket of this VM; `Busy` if its accept queue is full, which
/// means that the VMM or the guest agent does not accept connections; the VMM does not listen.
pub fn connect(places: &Places, vm: &VmId, socket: VmmSocket) -> Result<OwnedFd, RootError> {
    let name = match socket {
        VmmSocket::Api => API,
        VmmSocket::Vsock => VSOCK,
    };
    let root = folder::find(places, vm)?;
    let path = root.join(name);
    let foreign = || {
        let text = format!("`{}` is not a socket of this VM", path.display());
        RootError::new(Kind::Refused, text)
    };
    let failed = |error: io::Error| RootError::on_path("connect to", &path, &error);
    let folder = open_jail(&root).map_err(|error| failed(error.into()))?;
    let socket = open_socket(folder, name).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => foreign(),
        _ => failed(error),
    })?;
    if fstat(&socket).map_err(|error| failed(error.into()))?.st_uid != vm.uid() {
        return Err(foreign());
    }
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    match connect_inode(&socket, deadline, NotListening::Retry) {
        Ok(stream) => Ok(stream.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let text = format!("the accept queue of `{}` is full", path.display());
            Err(RootError::new(Kind::Busy, text).with_hint(HostHint::RestartVm))
        }
        Err(error) => Err(failed(error)),
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
    fn links_and_foreign_sockets_are_refused() {
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
        // Bound, not yet listening.
        let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&bound, &SocketAddrUnix::new(root.join(VSOCK)).unwrap()).unwrap();
        lchown(root.join(VSOCK), Some(vm.uid()), None).unwrap();
        std::thread::scope(|scope| {
            let early = scope.spawn(connect);
            listen(&bound, 1).unwrap();
            early.join().unwrap().unwrap();
        });
        // The VMM does not accept: the queue holds one more than its length.
        connect().unwrap();
        let full = connect().unwrap_err();
        assert_eq!(full.kind, Kind::Busy);
        assert!(full.message.ends_with("v.sock` is full"), "{full}");
        assert_eq!(close_hello(&places, &vm).unwrap(), Did::WasAbsent);
    }
}
