//! Reads untrusted ext2, ext3 and ext4 file systems, without mounting them.
//!
//! The structures are decoded by `mkext4::spec`; its own reader knows neither block sizes below
//! 4096 nor the block maps of ext2, and reading a file system as other programs made it needs both.
//! Everything that is read is bounded: no block outside of the file, no folder twice, not more
//! metadata than the file system has.

mod blocks;
mod walk;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::ext4::descriptors::{Descriptors, META_BG};
use mkext4::spec::{self, DirentIter, GroupDesc, Inode, Superblock, XattrBlockView, XattrEntry};

pub use blocks::Run;

/// Errors of reading a file system.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A structure is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A feature that is not read.
    #[error("it uses {0}, which is not supported")]
    Feature(String),
    /// read(2).
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

impl From<mkext4::Error> for VolumeError {
    fn from(error: mkext4::Error) -> Self {
        match error {
            mkext4::Error::Io(source) => Self::Read(source),
            mkext4::Error::Unsupported(what) => Self::Feature(what),
            mkext4::Error::Corrupt { what, why } => Self::Damaged(format!("{what}: {why}")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn damaged(why: impl Into<String>) -> VolumeError {
    VolumeError::Damaged(why.into())
}

/// A part of a file as a device: a partition, or the whole file.
#[derive(Debug)]
pub struct Window {
    file: File,
    start: u64,
    bytes: u64,
}

impl Window {
    /// The bytes from `start`; at most up to the end of the file.
    ///
    /// # Errors
    /// fstat(2).
    pub fn new(file: File, start: u64, bytes: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, start, bytes: bytes.min(length.saturating_sub(start)) })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, and the offset in it.
    pub fn file(&self) -> (&File, u64) {
        (&self.file, self.start)
    }

    /// Reads exactly, as pread(2).
    ///
    /// # Errors
    /// pread(2); beyond its end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), VolumeError> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes);
        end.ok_or_else(|| damaged("a block lies beyond its end"))?;
        self.file.read_exact_at(buffer, self.start + offset).map_err(VolumeError::Read)
    }
}

/// Whether a file system was unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was.
    Clean,
    /// Its journal has to be replayed, or it has to be checked.
    Dirty,
}

/// Features of which reading needs to know nothing beyond what is decoded, by bit of
/// `s_feature_incompat` (ext4 documentation of the kernel, "super block").
const READABLE: u32 = spec::incompat::READER
    | spec::incompat::RECOVER
    | META_BG
    // Blocks of multiple mounts, values of attributes in inodes, folders above 2 GiB, encryption
    // and case folding: what uses these of the files is refused by file, or needs no other reading.
    | 0x100
    | 0x400
    | 0x4000
    | 0x1_0000
    | 0x2_0000;
/// Names of other bits of `s_feature_incompat`.
const UNREADABLE: [(u32, &str); 4] = [
    (0x1, "compression"),
    (0x8, "a journal device"),
    (0x8000, "data in inodes (`inline_data`)"),
    (0x1000, "data in folders (`dirdata`)"),
];
/// `i_flags`: encrypted, and data within the inode.
const ENCRYPTED: u32 = 0x800;
const INLINE_DATA: u32 = 0x1000_0000;
/// `s_state`: unmounted cleanly; errors were found.
const VALID: u16 = 1;
const ERRORS: u16 = 2;
/// Maximum size of a symbolic link's target, PATH_MAX.
const TARGET_BYTES: u64 = 4096;

/// A file system.
pub struct Volume {
    window: Window,
    superblock: Superblock,
    block_bytes: u64,
    /// First block of each group's inode table.
    tables: Vec<u64>,
    seed: u32,
    /// Metadata blocks read in this pass.
    visits: Cell<u64>,
}

impl Volume {
    /// Opens a file system and checks its geometry.
    ///
    /// # Errors
    /// Damaged, or with a feature that is not read.
    pub fn open(window: Window) -> Result<Self, VolumeError> {
        let mut bytes = [0; Superblock::LEN];
        window.read_at(1024, &mut bytes)?;
        let superblock = Superblock::decode(&bytes)?;
        check_features(&superblock)?;
        check_geometry(&superblock)?;
        let has_checksums = superblock.feature_ro_compat & spec::ro_compat::METADATA_CSUM != 0;
        if has_checksums && mkext4::csum::superblock(&bytes) != superblock.checksum {
            return Err(damaged("the checksum of the superblock is wrong"));
        }
        let block_bytes = superblock.block_size();
        let groups = superblock.group_count();
        let table_bytes = groups.saturating_mul(superblock.desc_size() as u64);
        if table_bytes > window.bytes() {
            return Err(damaged("it has more groups than blocks"));
        }
        let places = Descriptors::of(&bytes, superblock.desc_size() as u64);
        let mut tables = Vec::new();
        for number in 0..table_bytes.div_ceil(block_bytes) {
            let place = places.block(number).and_then(|place| place.checked_mul(block_bytes));
            let place = place.ok_or_else(|| damaged("a block lies beyond its end"))?;
            let left = (table_bytes - number * block_bytes).min(block_bytes);
            let mut block = vec![0; usize::try_from(left).unwrap_or_default()];
            window.read_at(place, &mut block)?;
            for group in block.chunks_exact(superblock.desc_size()) {
                tables.push(GroupDesc::decode(group)?.inode_table);
            }
        }
        let seed = if superblock.feature_incompat & spec::incompat::CSUM_SEED != 0 {
            superblock.checksum_seed
        } else {
            mkext4::csum::fs_seed(&superblock.uuid)
        };
        let visits = Cell::new(0);
        Ok(Self { window, superblock, block_bytes, tables, seed, visits })
    }

    /// Whether it was unmounted.
    pub fn state(&self) -> State {
        let recover = self.superblock.feature_incompat & spec::incompat::RECOVER != 0;
        let clean = self.superblock.state & (VALID | ERRORS) == VALID;
        if recover || !clean { State::Dirty } else { State::Clean }
    }

    /// What it is part of.
    pub fn window(&self) -> &Window {
        &self.window
    }

    fn block(&self, number: u64) -> Result<Vec<u8>, VolumeError> {
        self.visits.set(self.visits.get() + 1);
        if number == 0 || self.visits.get() > self.superblock.blocks_count.saturating_mul(2) {
            return Err(damaged("its blocks form a loop"));
        }
        let mut block = vec![0; usize::try_from(self.block_bytes).unwrap_or_default()];
        self.window.read_at(self.offset(number)?, &mut block)?;
        Ok(block)
    }

    fn offset(&self, block: u64) -> Result<u64, VolumeError> {
        block.checked_mul(self.block_bytes).ok_or_else(|| damaged("a block lies beyond its end"))
    }

    fn inode(&self, number: u32) -> Result<(Inode, Vec<u8>), VolumeError> {
        let per_group = self.superblock.inodes_per_group;
        let index = number.checked_sub(1).filter(|_| number <= self.superblock.inodes_count);
        let index = index.ok_or_else(|| damaged(format!("there is no inode {number}")))?;
        let table = self.tables.get((index / per_group) as usize).copied();
        let table = table.ok_or_else(|| damaged(format!("there is no inode {number}")))?;
        let bytes = u64::from(self.superblock.inode_size);
        let offset = self.offset(table)?.checked_add(u64::from(index % per_group) * bytes);
        let mut raw = vec![0; usize::from(self.superblock.inode_size)];
        self.window.read_at(offset.unwrap_or(u64::MAX), &mut raw)?;
        let inode = Inode::decode(&raw)?;
        if self.superblock.feature_ro_compat & spec::ro_compat::METADATA_CSUM != 0 {
            let wanted = mkext4::csum::inode(self.seed, number, inode.generation, &raw);
            let mask = if inode.extra_isize >= 4 { u32::MAX } else { 0xffff };
            if wanted & mask != inode.checksum & mask {
                return Err(damaged(format!("the checksum of inode {number} is wrong")));
            }
        }
        for (flag, what) in [(ENCRYPTED, "encrypted files"), (INLINE_DATA, "data in inodes")] {
            if inode.flags & flag != 0 {
                return Err(VolumeError::Feature(what.into()));
            }
        }
        Ok((inode, raw))
    }

    /// Names and inodes in a folder, without itself and its parent.
    fn names(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u32)>, VolumeError> {
        let mut names = Vec::new();
        for run in self.runs(inode)? {
            for number in run.physical..run.physical.saturating_add(run.blocks) {
                let block = self.block(number)?;
                for entry in DirentIter::new(&block) {
                    let entry = entry?;
                    if matches!(entry.name, b"." | b"..") {
                        continue;
                    }
                    if entry.name.is_empty() || entry.name.iter().any(|b| matches!(b, 0 | b'/')) {
                        return Err(damaged("a folder has an impossible name"));
                    }
                    names.push((entry.name.to_vec(), entry.inode));
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Attributes by their full names, as ext4 stores them: access lists in its own encoding.
    fn xattrs(&self, inode: &Inode, raw: &[u8]) -> Result<Vec<(String, Vec<u8>)>, VolumeError> {
        let mut entries: Vec<XattrEntry> = spec::ibody_entries(raw, inode.extra_isize)?;
        if inode.file_acl != 0 {
            entries.extend(XattrBlockView::parse(&self.block(inode.file_acl)?)?.entries);
        }
        let named = entries.into_iter().filter_map(|entry| {
            let name = String::from_utf8(entry.full_name()?).ok()?;
            Some((name, entry.value))
        });
        Ok(named.filter(|(name, _)| !name.is_empty()).collect())
    }

    fn target(&self, inode: &Inode) -> Result<Vec<u8>, VolumeError> {
        if inode.size == 0 || inode.size >= TARGET_BYTES {
            return Err(damaged("a symbolic link has an impossible length"));
        }
        let mut target = Vec::new();
        if inode.uses_extents() || inode.size > 59 {
            let runs = self.runs(inode)?;
            let mut reader = self.reader(&runs, &[blocks::whole(inode.size)]);
            reader.read_to_end(&mut target).map_err(VolumeError::Read)?;
        } else {
            let length = usize::try_from(inode.size).unwrap_or_default();
            target.extend(&inode.block[..length]);
        }
        if target.contains(&0) {
            return Err(damaged("a symbolic link has an impossible target"));
        }
        Ok(target)
    }
}

fn check_features(superblock: &Superblock) -> Result<(), VolumeError> {
    let unknown = superblock.feature_incompat & !READABLE;
    if let Some((_, what)) = UNREADABLE.iter().find(|(bit, _)| unknown & bit != 0) {
        return Err(VolumeError::Feature((*what).into()));
    }
    if unknown != 0 {
        return Err(VolumeError::Feature(format!("unknown features ({unknown:#x})")));
    }
    Ok(())
}

/// Checks what later code divides by or indexes with.
fn check_geometry(superblock: &Superblock) -> Result<(), VolumeError> {
    let fine = superblock.log_block_size <= 6
        && superblock.blocks_count > u64::from(superblock.first_data_block)
        && superblock.first_data_block <= 1
        && superblock.blocks_per_group > 0
        && superblock.inodes_per_group > 0
        && matches!(superblock.inode_size, 128 | 256 | 512 | 1024 | 2048 | 4096)
        && matches!(superblock.desc_size(), 32 | 64..=1024);
    if fine { Ok(()) } else { Err(damaged("its superblock is impossible")) }
}
