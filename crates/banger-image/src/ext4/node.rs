//! Nodes of a file tree.

use std::collections::BTreeMap;

use super::tree::NodeId;

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// Contents of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes in memory.
    Inline(Vec<u8>),
    /// An entry of the source.
    Source {
        /// Number of the entry.
        index: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// An entry of the source, which contains only the data between the holes.
    Sparse {
        /// Number of the entry.
        index: u64,
        /// Length in bytes, holes included.
        bytes: u64,
        /// Extents with data, in order: whole blocks of 4096 bytes; the last may end with the file.
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

/// Type of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder: names and their nodes.
    Folder(BTreeMap<Name, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link with this target.
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
    /// Nanoseconds of the time of the last change.
    pub mtime_ns: u32,
}

impl Meta {
    /// Owner root, time 0.
    pub const fn of_root(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_s: 0, mtime_ns: 0 }
    }
}

/// An inode: everything but its names.
#[derive(Debug, Clone)]
pub struct Node {
    /// Type.
    pub kind: Kind,
    /// Owner, mode, time.
    pub meta: Meta,
    /// Extended attributes: full name and value.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Number of names.
    pub links: u32,
}
