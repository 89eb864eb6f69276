//! One entry of an archive.

use rustix::fs::{FileType, Stat, Timespec, Timestamps};

/// Largest file, in bytes: what ext4 holds (16 TiB).
pub const MAX_FILE_BYTES: u64 = 1 << 44;
/// Most stretches of data of one sparse file.
pub(crate) const MAX_SEGMENTS: usize = 262_144;
/// Size of a block of a tar archive, in bytes.
pub(crate) const BLOCK: u64 = 512;

/// Type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink.
    Symlink,
    /// A further name of a file that stands earlier in the archive.
    HardLink,
    /// A named pipe.
    Pipe,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A stretch of data in a file; everything between two is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The description of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type.
    pub kind: Kind,
    /// Path, any bytes.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// Its nanoseconds.
    pub mtime_ns: u32,
    /// Size of a file in bytes, holes included.
    pub size: u64,
    /// Data of a sparse file; absent for a file without holes.
    pub segments: Option<Vec<Segment>>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Entry {
    /// An entry with the owner, mode and time of a file.
    pub(crate) fn of(kind: Kind, path: &[u8], stat: &Stat) -> Self {
        let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        Self {
            kind,
            path: path.to_vec(),
            link: Vec::new(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime_s: stat.st_mtime,
            mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            size,
            segments: None,
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }

    /// Bytes of data that follow the description.
    pub fn data_bytes(&self) -> u64 {
        match (&self.segments, self.kind) {
            (Some(segments), Kind::File) => {
                segments.iter().fold(0u64, |sum, one| sum.saturating_add(one.length))
            }
            (None, Kind::File) => self.size,
            _ => 0,
        }
    }

    pub(crate) fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime_s, tv_nsec: self.mtime_ns.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

impl Kind {
    /// The kind of a file; none for a socket.
    pub(crate) fn of(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Pipe,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            _ => return None,
        })
    }
}
