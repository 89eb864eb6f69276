//! TAP interfaces of `/dev/net/tun` (Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

/// The device that creates TAP interfaces.
const DEVICE: &str = "/dev/net/tun";
/// Ethernet frames without the driver's header, each after a `virtio_net_hdr`. VMMs request these
/// flags, and an existing TAP can only be opened with the flags it was created with.
const FLAGS: libc::c_short =
    (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;

/// An open TAP; the interface has a carrier while it is open.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Opens the TAP with this name, and creates it if there is none: TUNSETIFF. A new TAP is
    /// removed when its last descriptor is closed, unless it is [kept](Self::keep_for).
    ///
    /// # Errors
    /// open(2); ioctl(2): `EBUSY` if another process has the TAP open or another kind of interface
    /// has the name, `EPERM` if the TAP belongs to another user, `EINVAL` if its flags differ.
    pub fn open(name: &str) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
        Self::open_with(device, name)
    }

    /// As [`Tap::open`], with `/dev/net/tun` already open.
    ///
    /// # Errors
    /// ioctl(2), as for [`Tap::open`]; `InvalidInput` if the name cannot be an interface name.
    #[expect(unsafe_code, reason = "an ioctl of the driver")]
    pub fn open_with(device: File, name: &str) -> io::Result<Self> {
        // SAFETY: an ifreq is plain data; all zeros is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= request.ifr_name.len() || bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an interface name"));
        }
        for (slot, byte) in request.ifr_name.iter_mut().zip(bytes) {
            *slot = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = FLAGS;
        // SAFETY: TUNSETIFF reads and writes one ifreq, and `request` is one.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(Self(device)) }
    }

    /// Makes the TAP persistent and restricts opening it to this uid and to root: TUNSETOWNER,
    /// TUNSETPERSIST. Without an owner every user could open it.
    ///
    /// # Errors
    /// ioctl(2).
    pub fn keep_for(&self, uid: u32) -> io::Result<()> {
        self.set(libc::TUNSETOWNER, uid.into())?;
        self.set(libc::TUNSETPERSIST, 1)
    }

    #[expect(unsafe_code, reason = "an ioctl of the driver")]
    fn set(&self, request: libc::c_ulong, value: libc::c_ulong) -> io::Result<()> {
        // SAFETY: both requests take a number, not a pointer.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// The TAP as a file: read(2) receives one frame, write(2) sends one, each after a
    /// `virtio_net_hdr` of ten bytes.
    pub fn into_file(self) -> File {
        self.0
    }
}
