//! The files that a shim leaves in its state folder, read by daemon and helper.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use banger_base::{ExitStory, ProcRef, RunFacts, ShimStatus};
use serde::de::DeserializeOwned;

use crate::ShimState;

/// A [`ShimState`], written once all children run.
pub const STATE_FILE: &str = "shim.json";
/// An [`ExitStory`], written once all children have ended.
pub const EXIT_FILE: &str = "exit.json";
/// A [`ShimStatus`], padded with spaces to [`STATUS_BYTES`]: it is overwritten in place, which
/// works on a full disk too.
pub const STATUS_FILE: &str = "status.json";
/// An empty file that the daemon creates: the vCPUs are to be paused as long as it exists.
pub const PAUSE_FILE: &str = "pause";
/// Length of [`STATUS_FILE`] in bytes.
pub const STATUS_BYTES: usize = 512;
/// Maximum size of a file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Parses a JSON file of a folder; `None` if it does not exist or is invalid.
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    let mut text = Vec::new();
    File::open(folder.join(name)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The processes of a run, if the shim recorded them.
pub fn state(folder: &Path) -> Option<ShimState> {
    read(folder, STATE_FILE)
}

/// How a run ended, if the shim recorded it.
pub fn story(folder: &Path) -> Option<ExitStory> {
    read(folder, EXIT_FILE)
}

/// The status of a run in progress, as reported by the shim.
pub fn status(folder: &Path) -> ShimStatus {
    read(folder, STATUS_FILE).unwrap_or_default()
}

/// The state of a run; `shim` is its shim, if known.
pub fn facts(folder: &Path, shim: Option<ProcRef>) -> RunFacts {
    let shim_is_alive = shim.is_some_and(banger_sys::proc::is_alive);
    // Read after the check of the shim: a shim that ends meanwhile has written its exit story.
    if let Some(story) = story(folder) {
        return RunFacts::Ended(story);
    }
    match state(folder) {
        Some(state) if shim_is_alive => RunFacts::Alive { vmm_pid: state.vmm.pid },
        _ => RunFacts::Nothing,
    }
}

/// Removes the files of an earlier run.
///
/// # Errors
/// unlink(2), with the path.
pub fn clear(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    for name in [STATE_FILE, STATUS_FILE, EXIT_FILE, PAUSE_FILE] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err((path, error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_prefer_the_exit_story_and_need_a_live_shim() {
        let folder = tempfile::tempdir().unwrap();
        let own = banger_sys::proc::reference(std::process::id());
        assert_eq!(facts(folder.path(), own), RunFacts::Nothing);
        let vmm = ProcRef { pid: 7, start_time: 1 };
        let text = serde_json::to_vec(&ShimState { companion: None, vmm }).unwrap();
        fs::write(folder.path().join(STATE_FILE), text).unwrap();
        assert_eq!(facts(folder.path(), None), RunFacts::Nothing);
        assert_eq!(facts(folder.path(), own), RunFacts::Alive { vmm_pid: 7 });
        let other = own.map(|own| ProcRef { start_time: own.start_time + 1, ..own });
        assert_eq!(facts(folder.path(), other), RunFacts::Nothing);
        let ended = ExitStory::unknown("killed");
        fs::write(folder.path().join(EXIT_FILE), serde_json::to_vec(&ended).unwrap()).unwrap();
        assert_eq!(facts(folder.path(), own), RunFacts::Ended(ended));
        clear(folder.path()).unwrap();
        clear(folder.path()).unwrap();
        assert_eq!(facts(folder.path(), own), RunFacts::Nothing);
        fs::write(folder.path().join(STATE_FILE), "{").unwrap();
        assert_eq!(facts(folder.path(), own), RunFacts::Nothing);
    }
}
