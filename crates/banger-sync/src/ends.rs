//! What a session begins with, and how it ends.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use crate::peer::{Bell, Peer};
use crate::reconcile::Place;

/// What a session keeps alike.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The host's folder.
    pub host: PathBuf,
    /// Patterns of ignored files, as in `.gitignore`.
    pub ignore: Vec<String>,
    /// File of the base; its folder exists.
    pub base: PathBuf,
    /// Free bytes of the host's disk below which nothing is written to it.
    pub reserve_bytes: u64,
}

/// A connection to the guest's side.
#[derive(Debug)]
pub struct Connection {
    /// The connection.
    pub stream: UnixStream,
    /// Bytes of it that were already received.
    pub early: Vec<u8>,
}

impl Connection {
    /// Speaks to the guest's side over it.
    ///
    /// # Errors
    /// As [`Peer::connect`].
    pub(crate) fn peer(self, bell: &Arc<Bell>) -> io::Result<Peer> {
        Peer::connect(Place::Guest, self.stream, &self.early, bell)
    }
}

/// Why a session ended.
#[derive(Debug)]
pub enum End {
    /// It was stopped.
    Stopped,
    /// The host's folder cannot be opened.
    HostFolder(io::Error),
    /// The folder of a side was removed, renamed or replaced.
    RootGone(Place),
    /// A side is gone, or another error.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}
