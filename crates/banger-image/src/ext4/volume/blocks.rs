//! Where the blocks of a file are: extents of ext4, and the block maps of ext2 and ext3.

use std::io::{self, Read};

use mkext4::spec::{ExtentHeader, ExtentIdx, Inode, extent};

use super::{Volume, VolumeError, damaged};
use crate::ext4::tree::{Content, Extent};

/// Block of the images that are written.
const BLOCK: u64 = 4096;
/// Blocks that an inode lists itself, and the number of its trees (ext2: `EXT2_NDIR_BLOCKS`).
const DIRECT: usize = 12;
/// Maximum depth of an extent tree: `EXT4_MAX_EXTENT_DEPTH`.
const DEPTH: u16 = 5;

/// Consecutive blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First block in the file.
    pub logical: u64,
    /// First block in the file system.
    pub physical: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// The whole of a file.
pub fn whole(bytes: u64) -> Extent {
    Extent { offset: 0, bytes }
}

/// Runs in order, adjacent ones joined.
#[derive(Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn add(&mut self, run: Run) -> Result<(), VolumeError> {
        if let Some(last) = self.0.last_mut() {
            if run.logical < last.logical + last.blocks {
                return Err(damaged("the blocks of a file overlap"));
            }
            let follows = |start: u64, next: u64| start.checked_add(last.blocks) == Some(next);
            if follows(last.logical, run.logical) && follows(last.physical, run.physical) {
                last.blocks += run.blocks;
                return Ok(());
            }
        }
        self.0.push(run);
        Ok(())
    }
}

impl Volume {
    /// The written blocks of a file, in order; others read as zeros.
    pub(super) fn runs(&self, inode: &Inode) -> Result<Vec<Run>, VolumeError> {
        let mut runs = Runs::default();
        if inode.uses_extents() {
            self.extents(&inode.block, None, &mut runs)?;
        } else {
            self.block_map(inode, &mut runs)?;
        }
        Ok(runs.0)
    }

    fn extents(&self, node: &[u8], depth: Option<u16>, runs: &mut Runs) -> Result<(), VolumeError> {
        let header = ExtentHeader::decode(node)?;
        let capacity = (node.len() - ExtentHeader::LEN) / ExtentHeader::ENTRY_LEN;
        let fits = header.depth <= DEPTH && usize::from(header.entries) <= capacity;
        if !fits || depth.is_some_and(|depth| depth != header.depth) {
            return Err(damaged("an extent tree is impossible"));
        }
        for index in 0..usize::from(header.entries) {
            let entry = extent::entry(node, index);
            if header.depth > 0 {
                let child = self.block(ExtentIdx::decode(entry).leaf)?;
                self.extents(&child, Some(header.depth - 1), runs)?;
                continue;
            }
            let entry = mkext4::spec::Extent::decode(entry);
            if entry.is_empty() {
                return Err(damaged("an extent is empty"));
            }
            if !entry.is_unwritten() {
                let (logical, blocks) = (u64::from(entry.logical), u64::from(entry.len()));
                runs.add(Run { logical, physical: entry.start, blocks })?;
            }
        }
        Ok(())
    }

    fn block_map(&self, inode: &Inode, runs: &mut Runs) -> Result<(), VolumeError> {
        let wanted = inode.size.div_ceil(self.block_bytes);
        let mut logical = 0;
        for (index, number) in numbers(&inode.block).enumerate() {
            if logical >= wanted {
                break;
            }
            let level = u32::try_from(index.saturating_sub(DIRECT - 1)).unwrap_or_default();
            self.mapped(number, level, &mut logical, wanted, runs)?;
        }
        Ok(())
    }

    /// Adds the blocks below a block of numbers, `level` trees deep; 0 is a block of the file.
    fn mapped(
        &self,
        number: u32,
        level: u32,
        logical: &mut u64,
        wanted: u64,
        runs: &mut Runs,
    ) -> Result<(), VolumeError> {
        let per_block = self.block_bytes / 4;
        if number == 0 || *logical >= wanted {
            *logical = logical.saturating_add(per_block.saturating_pow(level));
            return Ok(());
        }
        if level == 0 {
            runs.add(Run { logical: *logical, physical: u64::from(number), blocks: 1 })?;
            *logical += 1;
            return Ok(());
        }
        for below in numbers(&self.block(u64::from(number))?) {
            if *logical >= wanted {
                break;
            }
            self.mapped(below, level - 1, logical, wanted, runs)?;
        }
        Ok(())
    }

    /// The content of a file with these runs.
    pub(super) fn content(&self, index: u64, bytes: u64, runs: &[Run]) -> Content {
        let data = self.data(bytes, runs);
        if bytes == 0 || data == [whole(bytes)] {
            return Content::Source { index, bytes };
        }
        Content::Sparse { index, bytes, data: data.into() }
    }

    /// Extents of whole blocks of the images that are written.
    pub(super) fn data(&self, bytes: u64, runs: &[Run]) -> Vec<Extent> {
        let mut data: Vec<Extent> = Vec::new();
        for run in runs {
            let start = run.logical.saturating_mul(self.block_bytes) / BLOCK * BLOCK;
            let end = (run.logical + run.blocks).saturating_mul(self.block_bytes);
            let end = end.div_ceil(BLOCK).saturating_mul(BLOCK).min(bytes);
            match data.last_mut() {
                _ if start >= end => {}
                Some(last) if last.offset + last.bytes >= start => last.bytes = end - last.offset,
                _ => data.push(Extent { offset: start, bytes: end - start }),
            }
        }
        data
    }

    /// Reads these extents of a file one after the other.
    pub(super) fn reader<'a>(&'a self, runs: &'a [Run], data: &[Extent]) -> FileReader<'a> {
        let left = data.iter().rev().copied().collect();
        FileReader { volume: self, runs, left }
    }
}

/// Numbers of blocks, little-endian.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|part| part.try_into().map_or(0, u32::from_le_bytes))
}

/// Reads parts of a file.
pub(super) struct FileReader<'a> {
    volume: &'a Volume,
    runs: &'a [Run],
    /// What is left, the next part last.
    left: Vec<Extent>,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.left.last_mut() else { return Ok(0) };
        let block_bytes = self.volume.block_bytes;
        let block = part.offset / block_bytes;
        let next = self.runs.partition_point(|run| run.logical + run.blocks <= block);
        // Up to the end of the run, or of the hole before it.
        let (end, run) = match self.runs.get(next) {
            Some(run) if run.logical <= block => (run.logical + run.blocks, Some(run)),
            Some(run) => (run.logical, None),
            None => (u64::MAX, None),
        };
        let available = end.saturating_mul(block_bytes) - part.offset;
        let want = part.bytes.min(available).min(buffer.len() as u64);
        let buffer = &mut buffer[..usize::try_from(want).unwrap_or_default()];
        match run {
            Some(run) => {
                let first = self.volume.offset(run.physical).map_err(io::Error::other)?;
                let within = part.offset - run.logical * block_bytes;
                let offset = first.saturating_add(within);
                self.volume.window.read_at(offset, buffer).map_err(io::Error::other)?;
            }
            None => buffer.fill(0),
        }
        part.offset += want;
        part.bytes -= want;
        if part.bytes == 0 {
            self.left.pop();
        }
        Ok(buffer.len())
    }
}
