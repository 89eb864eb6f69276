//! What a file tree is made of.

use std::collections::BTreeMap;

use super::tree::NodeId;

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Here.
    Inline(Vec<u8>),
    /// In the source, as its entry of this number.
    Source {
        /// Number of the entry.
        index: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// In the source, as its entry of this number, which gives only the parts that are no holes.
    Sparse {
        /// Number of the entry.
        index: u64,
        /// Length in bytes, holes included.
        bytes: u64,
        /// Parts that are no holes, in order: whole blocks of 4096 bytes; the last may end with the
        /// file.
        data: Box<[Extent]>,
    },
}

impl Content {
    /// Length in bytes, holes included.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Source { bytes, .. } | Self::Sparse { bytes, .. } => *bytes,
        }
    }

    /// Length in bytes without the holes.
    pub fn stored_bytes(&self) -> u64 {
        match self {
            Self::Sparse { data, .. } => data.iter().map(|extent| extent.bytes).sum(),
            other => other.bytes(),
        }
    }
}

/// A name in a folder: any bytes but `/` and zero, at most 255.
pub type Name = Box<[u8]>;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Names and what they stand for.
    Folder(BTreeMap<Name, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Owner, mode and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, at most 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 of the last change; ext4 keeps 1901 to 2446.
    pub mtime_s: i64,
    /// Nanoseconds of it.
    pub mtime_ns: u32,
}

impl Meta {
    /// Owned by root, changed at the beginning of 1970.
    pub const fn of_root(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_s: 0, mtime_ns: 0 }
    }
}

/// A file, folder or something else, apart from its names.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Owner, mode, time.
    pub meta: Meta,
    /// Extended attributes: full name and value.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Names that point to it.
    pub links: u32,
}
