//! vsock(7) sockets: rustix knows the family but not its address.

use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::socket::set_option;

/// `SO_VM_SOCKETS_CONNECT_TIMEOUT` of `linux/vm_sockets.h` (the `_OLD` form: a `timeval`).
const CONNECT_TIMEOUT: libc::c_int = 6;

/// `SO_VM_SOCKETS_BUFFER_SIZE` and `SO_VM_SOCKETS_BUFFER_MAX_SIZE` of the same, a `u64` each.
const BUFFER_SIZE: libc::c_int = 0;
const BUFFER_MAX_SIZE: libc::c_int = 2;

/// Receive buffer of a connection in bytes. The guest's kernel tells the sender of free room only
/// when less than 64 KiB of it are left, and the sender waits for that: seldom with a large one.
const RECEIVE_BUFFER: u64 = 1024 * 1024;

/// A vsock address: machine and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VsockAddr {
    /// Context id of the machine; 2 = the host.
    pub cid: u32,
    /// Port on it.
    pub port: u32,
}

impl VsockAddr {
    fn to_raw(self) -> libc::sockaddr_vm {
        libc::sockaddr_vm {
            svm_family: libc::AF_VSOCK as libc::sa_family_t,
            svm_reserved1: 0,
            svm_port: self.port,
            svm_cid: self.cid,
            svm_zero: [0; 4],
        }
    }
}

#[expect(unsafe_code, reason = "rustix has no vsock address; the trait hands out a raw sockaddr")]
// SAFETY: `f` gets a pointer to a whole `sockaddr_vm` that lives until it returns, and its size.
unsafe impl SocketAddrArg for VsockAddr {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let raw = self.to_raw();
        f((&raw const raw).cast(), size_of::<libc::sockaddr_vm>() as SocketAddrLen)
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?)
}

/// Listens on `port` for connections from any machine; see [`accept`] for who came.
///
/// # Errors
/// As socket(2), bind(2), listen(2): `ENODEV`/`EAFNOSUPPORT` where the guest has no vsock.
pub fn listen(port: u32, backlog: i32) -> io::Result<OwnedFd> {
    let listener = socket()?;
    // Accepted connections have the listener's; the kernel's own is a fallback.
    let _ = set_option(&listener, libc::AF_VSOCK, BUFFER_MAX_SIZE, RECEIVE_BUFFER)
        .and_then(|()| set_option(&listener, libc::AF_VSOCK, BUFFER_SIZE, RECEIVE_BUFFER));
    net::bind(&listener, &VsockAddr { cid: libc::VMADDR_CID_ANY, port })?;
    net::listen(&listener, backlog)?;
    Ok(listener)
}

/// Connects to `address`, giving up after `timeout`.
///
/// # Errors
/// As connect(2): `ECONNRESET` without a listener, `ETIMEDOUT`.
pub fn connect(address: VsockAddr, timeout: Duration) -> io::Result<OwnedFd> {
    let stream = socket()?;
    let limit = libc::timeval {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(timeout.subsec_micros()),
    };
    set_option(&stream, libc::AF_VSOCK, CONNECT_TIMEOUT, limit)?;
    net::connect(&stream, &address)?;
    Ok(stream)
}

/// Takes the next connection and says which machine it is from; `None` when the kernel did not
/// tell, which the caller must treat as a stranger.
///
/// # Errors
/// As accept(2).
pub fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, Option<VsockAddr>)> {
    let (stream, peer) = net::acceptfrom_with(listener, SocketFlags::CLOEXEC)?;
    Ok((stream, peer.as_ref().and_then(decode)))
}

#[expect(unsafe_code, reason = "reads the raw peer address; rustix cannot decode this family")]
fn decode(peer: &net::SocketAddrAny) -> Option<VsockAddr> {
    if peer.address_family() != AddressFamily::VSOCK
        || (peer.addr_len() as usize) < size_of::<libc::sockaddr_vm>()
    {
        return None;
    }
    // SAFETY: family and length say that the storage begins with an initialised `sockaddr_vm`;
    // `read_unaligned` asks nothing of its alignment.
    let raw = unsafe { peer.as_ptr().cast::<libc::sockaddr_vm>().read_unaligned() };
    Some(VsockAddr { cid: raw.svm_cid, port: raw.svm_port })
}
