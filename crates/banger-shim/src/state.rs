//! The shim's files, in a folder that its children cannot write to.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use banger_shim::{
    EXIT_FILE, ExitStory, PAUSE_FILE, STATE_FILE, STATUS_BYTES, STATUS_FILE, ShimState, ShimStatus,
};
use banger_sys::fs::{Durability, open_folder, write_atomically};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

/// The state folder.
pub struct State(OwnedFd);

impl State {
    /// Opens the folder.
    ///
    /// # Errors
    /// The path and the error of open(2).
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |error| format!("`{}`: {error}", path.display());
        open_folder(path).map(Self).map_err(failed)
    }

    /// Records the processes of the run.
    ///
    /// # Errors
    /// The file cannot be written or renamed.
    pub fn write_state(&self, state: &ShimState) -> io::Result<()> {
        self.write(STATE_FILE, &serde_json::to_vec(state)?)
    }

    /// Records how the run ended.
    ///
    /// # Errors
    /// The file cannot be written or renamed.
    pub fn write_story(&self, story: &ExitStory) -> io::Result<()> {
        self.write(EXIT_FILE, &serde_json::to_vec(story)?)
    }

    /// Creates the status file with its full length.
    ///
    /// # Errors
    /// The file cannot be written, renamed or opened.
    pub fn make_status(&self) -> io::Result<StatusFile> {
        let status = ShimStatus::default();
        self.write(STATUS_FILE, &padded(&status)?)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, STATUS_FILE, flags, Mode::empty())?);
        Ok(StatusFile { file, status })
    }

    /// Whether the vCPUs are to be paused.
    pub fn pause_requested(&self) -> bool {
        statat(&self.0, PAUSE_FILE, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// A second handle of the folder.
    ///
    /// # Errors
    /// fcntl(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Not synced: after a power loss the host has another boot id, and both files are void.
        write_atomically(&self.0, name, bytes, Durability::Cached)
    }
}

/// The open status file.
pub struct StatusFile {
    file: File,
    status: ShimStatus,
}

impl StatusFile {
    /// Overwrites the file in place if the status changed: that needs no new block on file systems
    /// without copy-on-write.
    ///
    /// # Errors
    /// pwrite(2).
    pub fn update(&mut self, status: ShimStatus) -> io::Result<()> {
        if status != self.status {
            self.file.write_all_at(&padded(&status)?, 0)?;
            self.status = status;
        }
        Ok(())
    }
}

fn padded(status: &ShimStatus) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(status)?;
    bytes.resize(STATUS_BYTES, b' ');
    Ok(bytes)
}
