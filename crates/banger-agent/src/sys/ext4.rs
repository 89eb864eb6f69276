//! The ext4 ioctl that makes a mounted file system larger.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{self, Setter, opcode};

/// Grows the mounted ext4 of `fd` (its root folder) to `blocks` of its own block size:
/// `EXT4_IOC_RESIZE_FS` of `fs/ext4/ext4.h`.
///
/// # Errors
/// As ioctl(2): `EROFS`, `EPERM`, `EOVERFLOW`, or the file system lacks the feature.
#[expect(unsafe_code, reason = "an ioctl that rustix does not wrap")]
pub fn resize(fd: impl AsFd, blocks: u64) -> io::Result<()> {
    const RESIZE_FS: ioctl::Opcode = opcode::write::<u64>(b'f', 16);
    // SAFETY: the kernel reads one u64 through the pointer, which `Setter` keeps alive.
    unsafe { ioctl::ioctl(fd, Setter::<RESIZE_FS, u64>::new(blocks)) }?;
    Ok(())
}
