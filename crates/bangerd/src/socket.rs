//! Listening sockets of one daemon, for one user.

use std::io;
use std::path::{Path, PathBuf};

use banger_api::ApiError;
use tokio::net::{UnixListener, UnixStream};

use crate::failure::io_failure;

/// A bound socket; dropping it removes the file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket, replacing one of an earlier daemon. The caller holds the lock of the
    /// folder, so no process listens there.
    ///
    /// # Errors
    /// unlink(2), bind(2).
    pub fn bind(path: &Path) -> Result<Self, ApiError> {
        let failed = |error: io::Error| io_failure("listen on", path, &error);
        remove(path).map_err(failed)?;
        let listener = banger_sys::unix_path::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, path: path.into() })
    }

    /// The next connection of this user or of root (SO_PEERCRED, unix(7)); connections of other
    /// users are closed.
    ///
    /// # Errors
    /// accept(2).
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            if uid == 0 || uid == rustix::process::geteuid().as_raw() {
                return Ok(stream);
            }
            tracing::warn!(uid, socket = %self.path.display(), "refused another user");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next daemon removes a socket that cannot be removed now.
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
