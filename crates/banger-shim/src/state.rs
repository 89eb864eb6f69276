//! The shim's own files, in a folder that its children cannot write to.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use banger_shim::{EXIT_FILE, ExitStory, STATE_FILE, ShimState};
use banger_sys::fs::{Durability, open_folder, write_atomically};

/// The state folder.
pub struct State(OwnedFd);

impl State {
    /// Opens it.
    pub fn open(path: &str) -> Result<Self, String> {
        open_folder(Path::new(path)).map(Self).map_err(|error| format!("`{path}`: {error}"))
    }

    /// Says who runs.
    pub fn write_state(&self, state: &ShimState) -> io::Result<()> {
        self.write(STATE_FILE, &serde_json::to_vec(state)?)
    }

    /// Says how it ended.
    pub fn write_story(&self, story: &ExitStory) -> io::Result<()> {
        self.write(EXIT_FILE, &serde_json::to_vec(story)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // After a power cut there is another boot, for which neither file means anything.
        write_atomically(&self.0, name, bytes, Durability::Cached)
    }
}
