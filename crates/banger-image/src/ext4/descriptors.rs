//! Where the group descriptors of an ext4 file system are.
//!
//! They follow the superblock, or each block of them is in the first of the groups that it
//! describes: file systems that the kernel has enlarged (`descriptor_loc` in its fs/ext4/super.c).

/// `s_feature_incompat`: group descriptors are spread over the disk (`meta_bg`).
pub const META_BG: u32 = 0x10;
/// `s_feature_ro_compat`: not every group has a copy of the superblock.
const SPARSE_SUPER: u32 = 0x1;
/// `s_feature_compat`: only two groups have one.
const SPARSE_SUPER2: u32 = 0x200;

/// Which groups have a copy of the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SuperblockCopies {
    All,
    /// 0, 1 and the powers of 3, 5 and 7.
    Sparse,
    /// 0 and these.
    Two([u64; 2]),
}

impl SuperblockCopies {
    fn has(self, group: u64) -> bool {
        let is_power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        match self {
            Self::All => true,
            Self::Sparse => group < 2 || [3, 5, 7].into_iter().any(is_power_of),
            Self::Two(groups) => group == 0 || groups.contains(&group),
        }
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u16::from_le_bytes)
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u32::from_le_bytes)
}

/// Places of the blocks of group descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    first_block: u64,
    blocks_per_group: u64,
    /// Descriptors in a block.
    in_block: u64,
    /// Number of the first block of descriptors that is in its own groups.
    first_meta_block: u64,
    copies: SuperblockCopies,
}

impl Descriptors {
    /// From the 1024 bytes of a superblock whose block size was checked; `descriptor_bytes` is not
    /// zero.
    pub fn of(superblock: &[u8], descriptor_bytes: u64) -> Self {
        let value = |at: usize| u64::from(u32_at(superblock, at));
        let copies = if u32_at(superblock, 0x5c) & SPARSE_SUPER2 != 0 {
            SuperblockCopies::Two([0x24c, 0x250].map(value))
        } else if u32_at(superblock, 0x64) & SPARSE_SUPER != 0 {
            SuperblockCopies::Sparse
        } else {
            SuperblockCopies::All
        };
        let is_meta = u32_at(superblock, 0x60) & META_BG != 0;
        let block_bytes = 1024_u64 << u32_at(superblock, 0x18).min(6);
        Self {
            first_block: value(0x14),
            blocks_per_group: value(0x20),
            in_block: block_bytes / descriptor_bytes.max(1),
            first_meta_block: if is_meta { value(0x104) } else { u64::MAX },
            copies,
        }
    }

    /// The block with descriptors of this number; `None` beyond every disk.
    pub fn block(&self, number: u64) -> Option<u64> {
        if number < self.first_meta_block {
            return self.first_block.checked_add(1)?.checked_add(number);
        }
        let group = number.checked_mul(self.in_block)?;
        let copy = u64::from(self.copies.has(group));
        let start = group.checked_mul(self.blocks_per_group)?;
        self.first_block.checked_add(start)?.checked_add(copy)
    }
}
