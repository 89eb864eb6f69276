//! Loop devices: loop(4).
//!
//! A device is identified by the tag in its `lo_file_name`. LOOP_CONFIGURE sets the tag and the
//! backing file in one call, so a killed process leaves either nothing or a device that can be
//! found again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The control device, which allocates device numbers.
const CONTROL: &str = "/dev/loop-control";
/// Major number of loop devices (Documentation/admin-guide/devices.txt).
pub const MAJOR: u32 = 7;
/// Maximum length of a tag in bytes: `LO_NAME_SIZE` minus the final zero.
pub const MAX_TAG: usize = LO_NAME_SIZE - 1;

const LO_NAME_SIZE: usize = 64;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; LO_NAME_SIZE],
    crypt_name: [u8; LO_NAME_SIZE],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const BLANK: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    sizelimit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; LO_NAME_SIZE],
    crypt_name: [0; LO_NAME_SIZE],
    encrypt_key: [0; 32],
    init: [0; 2],
};

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

/// Access mode of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read-only, through the page cache of the backing file, which all readers share.
    Read,
    /// Read and write, with direct I/O where the file system supports it, since users of the device
    /// have a cache of their own.
    ReadWrite,
}

/// A bound device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The tag; the file name if another program bound the device.
    pub tag: String,
    /// `st_dev` of the backing file.
    pub file_device: u64,
    /// `st_ino` of that file.
    pub file_inode: u64,
    /// Access mode.
    pub access: Access,
    /// Whether the kernel unbinds the device when its last user closes it (LO_FLAGS_AUTOCLEAR).
    pub leaving: bool,
}

/// Path of the device with this number.
pub fn path(number: u32) -> String {
    format!("/dev/loop{number}")
}

fn open(number: u32, access: Access) -> io::Result<File> {
    OpenOptions::new().read(true).write(access == Access::ReadWrite).open(path(number))
}

/// Number of an unbound device, created if there is none: LOOP_CTL_GET_FREE. Another process may
/// bind it first.
///
/// # Errors
/// open(2) of the control device; ioctl(2).
#[expect(unsafe_code, reason = "an ioctl of the driver")]
pub fn free() -> io::Result<u32> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    // SAFETY: the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Binds the device to a backing file and a tag: LOOP_CONFIGURE.
///
/// # Errors
/// `InvalidInput` for an empty or too long tag; ioctl(2): `EBUSY` if the device is bound.
#[expect(unsafe_code, reason = "an ioctl of the driver")]
pub fn configure(number: u32, file: BorrowedFd<'_>, tag: &str, access: Access) -> io::Result<()> {
    if tag.is_empty() || tag.len() > MAX_TAG || tag.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a tag of a loop device"));
    }
    let device = open(number, access)?;
    let mut info = BLANK;
    info.file_name[..tag.len()].copy_from_slice(tag.as_bytes());
    info.flags = match access {
        Access::Read => LO_FLAGS_READ_ONLY,
        // The kernel ignores the flag if the file system does not support direct I/O.
        Access::ReadWrite => LO_FLAGS_DIRECT_IO,
    };
    let fd = u32::try_from(file.as_raw_fd()).unwrap_or_default();
    let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one loop_config, and `config` is one; it takes its own reference
    // to the file.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The status of a bound device; `None` if it is unbound or does not exist: LOOP_GET_STATUS64.
///
/// # Errors
/// open(2), ioctl(2).
#[expect(unsafe_code, reason = "an ioctl of the driver")]
pub fn status(number: u32) -> io::Result<Option<Status>> {
    let device = match open(number, Access::Read) {
        Err(error) if gone(&error) => return Ok(None),
        other => other?,
    };
    let mut info = BLANK;
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64, and `info` is one.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
    if done == -1 {
        let error = io::Error::last_os_error();
        return if gone(&error) { Ok(None) } else { Err(error) };
    }
    let name = info.file_name.split(|byte| *byte == 0).next().unwrap_or_default();
    let read_only = info.flags & LO_FLAGS_READ_ONLY != 0;
    Ok(Some(Status {
        tag: String::from_utf8_lossy(name).into_owned(),
        file_device: info.device,
        file_inode: info.inode,
        access: if read_only { Access::Read } else { Access::ReadWrite },
        leaving: info.flags & LO_FLAGS_AUTOCLEAR != 0,
    }))
}

fn gone(error: &io::Error) -> bool {
    let absent = [libc::ENOENT, libc::ENXIO, libc::ENODEV];
    error.raw_os_error().is_some_and(|code| absent.contains(&code))
}

/// Unbinds the device: LOOP_CLR_FD. If it is open, the kernel unbinds it at the last close.
/// Succeeds if the device is not bound.
///
/// # Errors
/// open(2), ioctl(2).
#[expect(unsafe_code, reason = "an ioctl of the driver")]
pub fn clear(number: u32) -> io::Result<()> {
    let device = match open(number, Access::Read) {
        Err(error) if gone(&error) => return Ok(()),
        other => other?,
    };
    // SAFETY: the request takes no argument.
    if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) } == -1 {
        let error = io::Error::last_os_error();
        return if gone(&error) { Ok(()) } else { Err(error) };
    }
    Ok(())
}

/// Numbers of all bound devices, from sysfs(5).
///
/// # Errors
/// readdir(3).
pub fn bound() -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let entries = match std::fs::read_dir("/sys/block") {
        // The host has no block device.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
        // The folder exists while the device is bound.
        if entry.path().join("loop").exists() {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
