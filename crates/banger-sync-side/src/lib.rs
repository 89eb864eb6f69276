//! One side of a live folder: the requests that keep a folder like another one, their encoding, and
//! the server that carries them out beneath the folder.
//!
//! The same server runs in the guest's agent and in the daemon, so the deciding half
//! (`banger-sync`) talks to both folders alike. It keeps no state but the watches: every change
//! names the state of the file that it replaces ([`Expected`]) and is refused if the file differs,
//! so nothing that a program wrote meanwhile is lost. All paths are resolved beneath the folder
//! without following symlinks (openat2(2)).

mod codec;
mod failed;
mod files;
mod identity;
mod serve;
mod stage;
mod watch;

pub use codec::{BadFrame, Frames, MAX_FRAME};
pub use files::{Rules, Side};
pub use identity::Identity;
pub use serve::serve;

/// Protocol name in the `Upgrade` header of `POST /sync`.
pub const UPGRADE: &str = "banger-sync-1";

/// Most content in one frame, in bytes.
pub const PIECE: usize = 128 * 1024;

/// Longest error message, in bytes.
pub const MAX_MESSAGE: usize = 512;

/// SHA-1 of a file's content: tells equal files apart from different ones, as git does.
pub type Digest = [u8; 20];

/// Type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file with the owner's execute bit.
    Program,
    /// A folder.
    Folder,
    /// A symlink.
    Link,
    /// Socket, pipe or device.
    Other,
}

/// State of a file on one side: equal as long as nobody changed the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Type.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: u64,
    /// Time of the last change of the inode in nanoseconds since 1970.
    pub ctime_ns: u64,
}

impl Stamp {
    /// Whether it is the same content after a rename, which changes the inode's own time.
    pub fn is_renamed(&self, before: &Self) -> bool {
        Self { ctime_ns: 0, ..*self } == Self { ctime_ns: 0, ..*before }
    }
}

/// The present state of a file that a change replaces; `None`: there is nothing of that name.
pub type Expected = Option<Stamp>;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, any bytes but `/` and zero.
    pub name: Vec<u8>,
    /// State.
    pub stamp: Stamp,
    /// Target of a symlink, else empty.
    pub target: Vec<u8>,
}

/// A request. Paths are relative to the folder, which is the empty path. Each is answered in order;
/// requests may be sent without waiting for the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Watch a folder and list it: any number of [`Reply::Entries`], then [`Reply::Listed`].
    List {
        /// The folder.
        path: Vec<u8>,
    },
    /// Read a file and answer with its digest: [`Reply::Hashed`].
    Hash {
        /// The file.
        path: Vec<u8>,
    },
    /// Read a file: [`Reply::Data`] up to its size, then [`Reply::Hashed`].
    Read {
        /// The file.
        path: Vec<u8>,
    },
    /// Write a file: `size` bytes follow as [`Request::Data`], or [`Request::Abort`]. The file
    /// appears when it is complete. [`Reply::Done`].
    Write {
        /// The file.
        path: Vec<u8>,
        /// What it replaces.
        expected: Expected,
        /// Whether it is a program.
        executable: bool,
        /// Size in bytes.
        size: u64,
    },
    /// Make a folder; one that exists is kept. [`Reply::Done`]. With the empty path the answer is
    /// the [`Identity`] of what is at the folder's own path now; older sides fail.
    Folder {
        /// The folder.
        path: Vec<u8>,
    },
    /// Make a symlink. [`Reply::Done`].
    Link {
        /// The symlink.
        path: Vec<u8>,
        /// Its target.
        target: Vec<u8>,
        /// What it replaces.
        expected: Expected,
    },
    /// Remove a file, a symlink or an empty folder. [`Reply::Done`].
    Remove {
        /// Its path.
        path: Vec<u8>,
        /// Its state.
        expected: Stamp,
    },
    /// Set or clear the execute bits. [`Reply::Done`].
    Execute {
        /// The file.
        path: Vec<u8>,
        /// Its state.
        expected: Stamp,
        /// Whether it is a program.
        executable: bool,
    },
    /// Rename within the folder that it is in; never replaces. [`Reply::Done`].
    Rename {
        /// Its path.
        path: Vec<u8>,
        /// The new name.
        name: Vec<u8>,
        /// Its state.
        expected: Stamp,
    },
    /// Write everything to the disk (syncfs(2)). [`Reply::Done`].
    Flush,
    /// Content of the file that is being written; no answer.
    Data(Vec<u8>),
    /// The file that is being written is not to appear: answered as a failure of the write.
    Abort,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It does not exist.
    Missing,
    /// It is not in the expected state, or changed while it was read.
    Changed,
    /// The folder is not empty.
    NotEmpty,
    /// Another error of the file system.
    Failed,
}

/// An answer, or a notice that answers no request: [`Reply::Dirty`], [`Reply::Lost`],
/// [`Reply::RootGone`], [`Reply::Working`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Entries of a folder.
    Entries(Vec<Entry>),
    /// The end of a list.
    Listed {
        /// The side's clock in nanoseconds since 1970.
        now_ns: u64,
        /// Whether the folder is watched.
        watched: bool,
    },
    /// Content of a file.
    Data(Vec<u8>),
    /// The file was read as a whole, and did not change meanwhile.
    Hashed {
        /// Its state.
        stamp: Stamp,
        /// SHA-1 of its content.
        digest: Digest,
        /// The side's clock in nanoseconds since 1970.
        now_ns: u64,
    },
    /// A change is made.
    Done {
        /// State of what was written.
        stamp: Expected,
        /// The side's clock in nanoseconds since 1970.
        now_ns: u64,
    },
    /// The request failed.
    Failed {
        /// Why.
        cause: Cause,
        /// The reason in words.
        message: String,
    },
    /// Folders in which something changed.
    Dirty(Vec<Vec<u8>>),
    /// Anything may have changed: the kernel's queue of changes was full.
    Lost,
    /// The folder itself was removed or renamed.
    RootGone,
    /// A long request is still being carried out.
    Working,
}
