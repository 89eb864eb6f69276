//! Blocks that a file shares with other files after a clone ([`crate::sparse::clone`]): the FIEMAP
//! ioctl (Documentation/filesystems/fiemap.rst).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `sizeof(struct fiemap)`, followed by the offsets of its fields.
const HEADER: usize = 32;
const START: usize = 0;
const LENGTH: usize = 8;
const MAPPED: usize = 20;
const COUNT: usize = 24;

/// `sizeof(struct fiemap_extent)`, followed by the offsets of its fields.
const EXTENT: usize = 56;
const EXTENT_LENGTH: usize = 16;
const EXTENT_FLAGS: usize = 40;

const LAST: u32 = 1;
const SHARED: u32 = 0x2000;

/// Extents per ioctl.
const BATCH: usize = 512;
/// _IOWR('f', 11, struct fiemap)
const FS_IOC_FIEMAP: libc::c_ulong =
    (3 << 30) | ((HEADER as libc::c_ulong) << 16) | (0x66 << 8) | 11;

/// Allocated bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Bytes in blocks that no other file uses.
    pub own: u64,
    /// Bytes in blocks that other files also use.
    pub shared: u64,
}

/// Counts the bytes of a file in exclusive and in shared blocks. Holes count as neither.
///
/// # Errors
/// ioctl(2): `EOPNOTSUPP` if the file system does not support FIEMAP.
pub fn share(file: &File) -> io::Result<Share> {
    let mut sum = Share::default();
    let mut start = 0;
    loop {
        let answer = extents(file, start)?;
        let count = u32_at(&answer, MAPPED) as usize;
        let mut last = count == 0;
        for extent in answer[HEADER..].chunks_exact(EXTENT).take(count) {
            let (at, length) = (u64_at(extent, 0), u64_at(extent, EXTENT_LENGTH));
            let flags = u32_at(extent, EXTENT_FLAGS);
            let kind = if flags & SHARED == 0 { &mut sum.own } else { &mut sum.shared };
            *kind = kind.saturating_add(length);
            last |= flags & LAST != 0;
            start = at.saturating_add(length);
        }
        if last {
            return Ok(sum);
        }
    }
}

#[expect(unsafe_code, reason = "an ioctl of the file system")]
fn extents(file: &File, start: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER + BATCH * EXTENT];
    bytes[START..][..8].copy_from_slice(&start.to_ne_bytes());
    bytes[LENGTH..][..8].copy_from_slice(&(u64::MAX - start).to_ne_bytes());
    bytes[COUNT..][..4].copy_from_slice(&(BATCH as u32).to_ne_bytes());
    // SAFETY: the call writes the header and at most as many extents as its count says, which fit
    // into `bytes`, and does not keep the pointer.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, bytes.as_mut_ptr()) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map_or(0, |four| u32::from_ne_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map_or(0, |eight| u64::from_ne_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_not_counted_and_all_extents_are() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = File::create_new(folder.path().join("file")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert_eq!(share(&file).unwrap(), Share::default());
        for n in 0..1200 {
            file.write_all_at(&[1; 4096], n * 65536).unwrap();
        }
        file.sync_all().unwrap();
        assert_eq!(share(&file).unwrap().own, 1200 * 4096);
    }
}
