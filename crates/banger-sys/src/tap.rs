//! TAP interfaces: the TUN/TAP driver's page (Documentation/networking/tuntap.rst), `/dev/net/tun`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

/// The device that TAPs are made with.
const DEVICE: &str = "/dev/net/tun";
/// Ethernet frames, without the driver's own header, each after a `virtio_net_hdr`: what VMMs ask
/// for, and an existing TAP is only opened with the same.
const FLAGS: libc::c_short =
    (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;

/// A TAP that this process has open; it has a carrier for that long.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Opens the TAP of this name, made if there is none: TUNSETIFF. One that is made goes when the
    /// last descriptor is closed, unless it is [kept](Self::keep_for).
    ///
    /// # Errors
    /// open(2); ioctl(2): `EBUSY` if another process has it open or the name is of another kind of
    /// interface, `EPERM` if it is another user's, `EINVAL` if its kind of frames is another.
    pub fn open(name: &str) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
        Self::open_with(device, name)
    }

    /// The same with `/dev/net/tun` opened already.
    ///
    /// # Errors
    /// ioctl(2), as for [`Tap::open`]; a name that is no interface's.
    #[expect(unsafe_code, reason = "an ioctl of the driver")]
    pub fn open_with(device: File, name: &str) -> io::Result<Self> {
        // SAFETY: an ifreq is plain data, and all zeros is one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= request.ifr_name.len() || bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an interface's name"));
        }
        for (slot, byte) in request.ifr_name.iter_mut().zip(bytes) {
            *slot = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = FLAGS;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(Self(device)) }
    }

    /// Lets the user open it later, root aside the only one who can, and keeps it when nobody has
    /// it open: TUNSETOWNER, TUNSETPERSIST. A TAP without an owner could be opened by anybody.
    ///
    /// # Errors
    /// ioctl(2).
    pub fn keep_for(&self, uid: u32) -> io::Result<()> {
        self.set(libc::TUNSETOWNER, uid.into())?;
        self.set(libc::TUNSETPERSIST, 1)
    }

    #[expect(unsafe_code, reason = "an ioctl of the driver")]
    fn set(&self, what: libc::c_ulong, value: libc::c_ulong) -> io::Result<()> {
        // SAFETY: both requests take a number, no pointer.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), what as _, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Its frames: read(2) takes one, write(2) sends one, each after a `virtio_net_hdr` of ten
    /// bytes.
    pub fn into_file(self) -> File {
        self.0
    }
}
