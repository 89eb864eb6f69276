//! The blocks that an ext4 file system uses, read from its bitmaps.
//!
//! The disk comes from a guest: every number in it is checked, and a file system that is not
//! understood is refused. The layout is that of the kernel's Documentation/filesystems/ext4.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::descriptors::{Descriptors, u16_at, u32_at};

/// Place of the superblock in bytes.
const SUPERBLOCK: u64 = 1024;
/// `s_magic`.
const MAGIC: u16 = 0xef53;
/// `s_state`: unmounted cleanly, and without errors.
const VALID: u16 = 1;
const ERRORS: u16 = 2;
/// `s_feature_incompat`: the journal has to be replayed.
const NEEDS_RECOVERY: u32 = 0x4;
/// `s_feature_incompat`: group descriptors of 64 bytes.
const BITS_64: u32 = 0x80;
/// `s_feature_ro_compat`: one bit of a bitmap is a cluster of blocks.
const BIGALLOC: u32 = 0x200;
/// `bg_flags`: the block bitmap is not initialised.
const BLOCK_UNINIT: u16 = 2;
/// Maximum number of blocks: 16 TiB of 4 KiB.
const MAX_BLOCKS: u64 = 1 << 32;

/// Maximum number of ranges.
const MAX_RANGES: usize = 1 << 20;

/// Why the used blocks of a disk cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum UsedError {
    /// The disk cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// No ext4.
    #[error("it has no ext4 file system")]
    NotExt4,
    /// Its journal was not replayed, or it was not unmounted.
    #[error("its file system was not unmounted cleanly")]
    Dirty,
    /// The kernel of the guest found errors in it.
    #[error("its file system has errors")]
    Errors,
    /// A feature that this reader does not know.
    #[error("its file system has {0}, which cannot be captured")]
    Feature(&'static str),
    /// A value that makes no sense.
    #[error("its file system is damaged: {0}")]
    Damaged(&'static str),
}

/// Used blocks of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Length of the file system in bytes.
    pub bytes: u64,
    /// Byte ranges with used blocks, in order.
    pub ranges: Vec<Range<u64>>,
}

struct Superblock {
    block_bytes: u64,
    blocks: u64,
    first_block: u64,
    blocks_per_group: u64,
    descriptor_bytes: u64,
    has_checksums: bool,
    /// Where the blocks of group descriptors are.
    descriptors: Descriptors,
}

fn read(disk: &File, at: u64, length: usize) -> Result<Vec<u8>, UsedError> {
    let mut bytes = vec![0; length];
    disk.read_exact_at(&mut bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => UsedError::Damaged("it is longer than its disk"),
        _ => UsedError::Io(error),
    })?;
    Ok(bytes)
}

fn superblock(disk: &File) -> Result<Superblock, UsedError> {
    let length = disk.metadata().map_err(UsedError::Io)?.len();
    if length < SUPERBLOCK + 1024 {
        return Err(UsedError::NotExt4);
    }
    let bytes = read(disk, SUPERBLOCK, 1024)?;
    if u16_at(&bytes, 0x38) != MAGIC {
        return Err(UsedError::NotExt4);
    }
    let (incompat, ro_compat) = (u32_at(&bytes, 0x60), u32_at(&bytes, 0x64));
    let state = u16_at(&bytes, 0x3a);
    if incompat & NEEDS_RECOVERY != 0 || state & VALID == 0 {
        return Err(UsedError::Dirty);
    }
    if state & ERRORS != 0 {
        return Err(UsedError::Errors);
    }
    if ro_compat & BIGALLOC != 0 {
        return Err(UsedError::Feature("bigalloc"));
    }
    let log_block = u32_at(&bytes, 0x18);
    if log_block > 6 {
        return Err(UsedError::Damaged("the size of a block"));
    }
    let wide = incompat & BITS_64 != 0;
    let high = if wide { u64::from(u32_at(&bytes, 0x150)) << 32 } else { 0 };
    let descriptor_bytes = if wide { u64::from(u16_at(&bytes, 0xfe)) } else { 32 };
    let found = Superblock {
        block_bytes: 1024 << log_block,
        blocks: high | u64::from(u32_at(&bytes, 0x4)),
        first_block: u32_at(&bytes, 0x14).into(),
        blocks_per_group: u32_at(&bytes, 0x20).into(),
        descriptor_bytes,
        // metadata_csum or gdt_csum: without one of them, flags of groups mean nothing.
        has_checksums: ro_compat & 0x410 != 0,
        descriptors: Descriptors::of(&bytes, descriptor_bytes),
    };
    let fits = found.blocks.checked_mul(found.block_bytes).is_some_and(|bytes| bytes <= length);
    if found.blocks == 0 || found.blocks > MAX_BLOCKS || !fits {
        return Err(UsedError::Damaged("the number of blocks"));
    }
    if found.first_block > 1 || found.blocks_per_group != found.block_bytes * 8 {
        return Err(UsedError::Damaged("the size of a group"));
    }
    if !(32..=1024).contains(&descriptor_bytes) || !descriptor_bytes.is_power_of_two() {
        return Err(UsedError::Damaged("the size of a group descriptor"));
    }
    Ok(found)
}

/// The descriptors of all groups.
fn descriptors(disk: &File, fs: &Superblock, groups: u64) -> Result<Vec<u8>, UsedError> {
    let block = usize::try_from(fs.block_bytes).unwrap_or_default();
    let in_block = fs.block_bytes / fs.descriptor_bytes;
    let mut table = Vec::new();
    for number in 0..groups.div_ceil(in_block) {
        let place = fs.descriptors.block(number).filter(|place| *place < fs.blocks);
        let place = place.ok_or(UsedError::Damaged("the place of group descriptors"))?;
        table.extend(read(disk, place * fs.block_bytes, block)?);
    }
    Ok(table)
}

/// The byte ranges that a cleanly unmounted ext4 file system uses.
///
/// # Errors
/// No ext4, one that is in use or damaged, or has a feature that is not known.
pub fn ranges(disk: &File) -> Result<Used, UsedError> {
    let fs = superblock(disk)?;
    let groups = (fs.blocks - fs.first_block).div_ceil(fs.blocks_per_group);
    let block = usize::try_from(fs.block_bytes).unwrap_or_default();
    let table = descriptors(disk, &fs, groups)?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut add = |from: u64, to: u64| {
        // The boot sector, before the first block of small blocks, counts as used.
        let from = if from == fs.first_block { 0 } else { from };
        let range = from * fs.block_bytes..to * fs.block_bytes;
        // With the free blocks between them: a guest can make every second block free.
        let is_full = ranges.len() >= MAX_RANGES;
        match ranges.last_mut() {
            Some(last) if last.end == range.start || is_full => last.end = range.end,
            _ => ranges.push(range),
        }
    };
    let described = table.chunks_exact(usize::try_from(fs.descriptor_bytes).unwrap_or(32));
    for (group, descriptor) in (0..groups).zip(described) {
        let first = fs.first_block + group * fs.blocks_per_group;
        let end = (first + fs.blocks_per_group).min(fs.blocks);
        if fs.has_checksums && u16_at(descriptor, 0x12) & BLOCK_UNINIT != 0 {
            // Only copies of the superblock and tables of this and other groups are in it.
            add(first, end);
            continue;
        }
        let high = if descriptor.len() >= 64 { u32_at(descriptor, 0x20) } else { 0 };
        let bitmap = u64::from(high) << 32 | u64::from(u32_at(descriptor, 0));
        if bitmap >= fs.blocks {
            return Err(UsedError::Damaged("the place of a bitmap"));
        }
        let bitmap = read(disk, bitmap * fs.block_bytes, block)?;
        let is_used = |number: u64| {
            let at = usize::try_from((number - first) / 8).unwrap_or(usize::MAX);
            bitmap.get(at).is_some_and(|byte| byte >> ((number - first) % 8) & 1 == 1)
        };
        let mut start = None;
        for number in first..end {
            match (start, is_used(number)) {
                (None, true) => start = Some(number),
                (Some(from), false) => {
                    add(from, number);
                    start = None;
                }
                _ => {}
            }
        }
        if let Some(from) = start {
            add(from, end);
        }
    }
    Ok(Used { bytes: fs.blocks * fs.block_bytes, ranges })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::ext4::volume::{Volume, Window};

    /// A file system of mke2fs(8) with a tree in it.
    fn made(options: &[&str], mib: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        for number in 0..200_u32 {
            let text = number.to_le_bytes().repeat(1 + 97 * number as usize);
            std::fs::write(tree.join(format!("a/b/{number}")), text).unwrap();
        }
        let disk = folder.path().join("disk");
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-d"])
            .arg(&tree)
            .args(options)
            .arg(&disk)
            .arg(format!("{mib}M"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        (folder, disk)
    }

    fn is_clean(disk: &std::path::Path) -> bool {
        Command::new("e2fsck").args(["-f", "-n"]).arg(disk).output().unwrap().status.success()
    }

    #[test]
    fn a_copy_of_the_used_ranges_is_the_same_file_system() {
        for (options, mib) in [
            (&[][..], 64),
            (&["-b", "1024"][..], 40),
            (&["-O", "^64bit,^metadata_csum"], 300),
            (&["-O", "meta_bg,^resize_inode", "-b", "1024"], 300),
            (&["-O", "sparse_super2,meta_bg,^resize_inode"], 300),
            (&["-O", "^flex_bg,^has_journal", "-g", "32768"], 700),
        ] {
            let (folder, disk) = made(options, mib);
            // What was deleted is left in free blocks.
            let source = File::options().read(true).write(true).open(&disk).unwrap();
            let used = ranges(&source).unwrap();
            assert_eq!(used.bytes, mib << 20);
            let mut at = 0;
            for range in &used.ranges {
                assert!(at <= range.start && range.start < range.end && range.end <= used.bytes);
                let free = usize::try_from(range.start - at).unwrap().min(1 << 20);
                source.write_all_at(&vec![0xaa; free], at).unwrap();
                at = range.end;
            }
            assert!(is_clean(&disk), "{options:?}");
            let copy = folder.path().join("copy");
            let target = File::create_new(&copy).unwrap();
            target.set_len(used.bytes).unwrap();
            for range in &used.ranges {
                let piece = read(&source, range.start, (range.end - range.start) as usize);
                target.write_all_at(&piece.unwrap(), range.start).unwrap();
            }
            assert!(is_clean(&copy), "{options:?}");
            let dump = |disk: &std::path::Path| {
                let cat = ["-R", "cat /a/b/199"];
                Command::new("debugfs").args(cat).arg(disk).output().unwrap().stdout
            };
            let window = Window::new(File::open(&copy).unwrap(), 0, used.bytes).unwrap();
            let walked = Volume::open(window).unwrap().walk(&mut |_, _, _| Ok(())).unwrap();
            assert!(walked.tree.get("a/b/199").is_some(), "{options:?}");
            assert!(dump(&disk).len() > 70_000);
            assert_eq!(dump(&copy), dump(&disk));
        }
    }

    #[test]
    fn a_disk_in_use_or_damaged_is_refused() {
        let (_folder, disk) = made(&[], 64);
        let file = File::options().read(true).write(true).open(&disk).unwrap();
        let whole = read(&file, SUPERBLOCK, 1024).unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = whole.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            file.write_all_at(&changed, SUPERBLOCK).unwrap();
            ranges(&file)
        };
        assert!(matches!(with(0x38, &[0, 0]), Err(UsedError::NotExt4)));
        assert!(matches!(with(0x3a, &[0, 0]), Err(UsedError::Dirty)));
        assert!(matches!(with(0x3a, &[3, 0]), Err(UsedError::Errors)));
        let incompat = u32_at(&whole, 0x60);
        let recover = with(0x60, &(incompat | NEEDS_RECOVERY).to_le_bytes());
        assert!(matches!(recover, Err(UsedError::Dirty)));
        let bigalloc = u32_at(&whole, 0x64) | BIGALLOC;
        assert!(matches!(with(0x64, &bigalloc.to_le_bytes()), Err(UsedError::Feature("bigalloc"))));
        for (at, bytes) in [
            (0x4, u32::MAX.to_le_bytes()),
            (0x4, 0_u32.to_le_bytes()),
            (0x150, 1_u32.to_le_bytes()),
            (0x18, 77_u32.to_le_bytes()),
            (0x20, 1_u32.to_le_bytes()),
            (0x14, 9_u32.to_le_bytes()),
        ] {
            assert!(matches!(with(at, &bytes), Err(UsedError::Damaged(_))), "{at:#x}");
        }
        with(0, &whole[..4]).unwrap();
        // Any byte of the first descriptors.
        let table = read(&file, 4096, 64).unwrap();
        for at in 0..64 {
            let mut changed = table.clone();
            changed[at] = 0xff;
            file.write_all_at(&changed, 4096).unwrap();
            let _ = ranges(&file);
        }
        let empty = tempfile::tempfile().unwrap();
        assert!(matches!(ranges(&empty), Err(UsedError::NotExt4)));
    }
}
