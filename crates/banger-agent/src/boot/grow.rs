//! Grows an ext4 file system to the size of its disk.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::disks::Disk;
use crate::fault::{Context, Fault};
use crate::sys::ext4;

/// Where the superblock begins, in bytes.
const SUPERBLOCK: u64 = 1024;

/// Size of an ext4, from its superblock.
#[derive(Debug, PartialEq, Eq)]
struct Geometry {
    block_bytes: u64,
    blocks: u64,
}

/// How many blocks the mounted file system should grow to, read from the disk before the mount;
/// `None` where it fills the disk already or the disk holds no ext4.
pub fn wanted_blocks(disk: &Disk) -> Option<u64> {
    let mut superblock = [0; 1024];
    File::open(disk.path()).ok()?.read_exact_at(&mut superblock, SUPERBLOCK).ok()?;
    target(&parse(&superblock)?, disk.size_bytes()?)
}

/// Grows the file system whose root folder is `mounted`.
///
/// # Errors
/// The kernel's; the file system is then as it was.
pub fn grow(mounted: impl AsFd, blocks: u64, disk: &Disk) -> Result<(), Fault> {
    ext4::resize(mounted, blocks)
        .context(|| format!("cannot grow the file system on `{}`", disk.path()))
}

/// `struct ext4_super_block`: little-endian `s_blocks_count_lo` at 4, `s_log_block_size` at 24,
/// `s_magic` at 56, `s_feature_incompat` at 96, `s_blocks_count_hi` at 336.
fn parse(superblock: &[u8; 1024]) -> Option<Geometry> {
    const MAGIC: u32 = 0xef53;
    const INCOMPAT_64BIT: u32 = 0x80;
    let word = |at: usize| {
        let bytes = superblock.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if word(56)? & 0xffff != MAGIC {
        return None;
    }
    let log_size = word(24)?;
    // Block sizes go from 1 KiB to 64 KiB.
    let block_bytes = if log_size <= 6 { 1024u64 << log_size } else { return None };
    let high = if word(96)? & INCOMPAT_64BIT == 0 { 0 } else { word(336)? };
    Some(Geometry { block_bytes, blocks: u64::from(high) << 32 | u64::from(word(4)?) })
}

fn target(geometry: &Geometry, disk_bytes: u64) -> Option<u64> {
    let fits = disk_bytes / geometry.block_bytes;
    (fits > geometry.blocks).then_some(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(blocks_low: u32, log_size: u32, incompat: u32, blocks_high: u32) -> [u8; 1024] {
        let mut bytes = [0; 1024];
        bytes[4..8].copy_from_slice(&blocks_low.to_le_bytes());
        bytes[24..28].copy_from_slice(&log_size.to_le_bytes());
        bytes[56..58].copy_from_slice(&0xef53u16.to_le_bytes());
        bytes[96..100].copy_from_slice(&incompat.to_le_bytes());
        bytes[336..340].copy_from_slice(&blocks_high.to_le_bytes());
        bytes
    }

    #[test]
    fn sizes_are_read_from_the_superblock() {
        let small = parse(&superblock(262_144, 2, 0x40, 7)).unwrap();
        assert_eq!(small, Geometry { block_bytes: 4096, blocks: 262_144 });
        let large = parse(&superblock(5, 2, 0x80, 1)).unwrap();
        assert_eq!(large.blocks, (1 << 32) + 5);
        assert_eq!(parse(&[0; 1024]), None);
        assert_eq!(parse(&superblock(1, 60, 0, 0)), None);
    }

    #[test]
    fn only_growth_is_asked_for() {
        let geometry = Geometry { block_bytes: 4096, blocks: 100 };
        assert_eq!(target(&geometry, 100 * 4096), None);
        assert_eq!(target(&geometry, 100 * 4096 + 4095), None);
        assert_eq!(target(&geometry, 50 * 4096), None);
        assert_eq!(target(&geometry, 200 * 4096), Some(200));
    }
}
