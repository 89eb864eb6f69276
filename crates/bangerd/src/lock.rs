//! One daemon per state folder: a lock (flock(2)) on a file that holds the daemon's process id.
//!
//! The kernel releases the lock when the process ends, so a lock is never stale. The run folder has
//! a lock of its own: two state folders must not share sockets. The text is only for messages: a
//! disk without room for it does not keep the daemon from starting.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use banger_api::{ApiError, ErrorCode, Hint};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::io_failure;

/// Name of the lock file in its folder.
pub const FILE: &str = "bangerd.lock";
/// How long to wait for a daemon that is about to end: a little more than that may take.
const STOPPING_GRACE: Duration = Duration::from_secs(40);
/// Length of the text in a lock file, in bytes, padded with spaces.
const TEXT_BYTES: usize = 64;
/// Follows the process id in the file of a daemon that is about to end.
const STOPPING: &str = "stopping";

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of `folder`.
    ///
    /// # Errors
    /// Another daemon holds it ([`ErrorCode::Busy`], naming its pid), or the file cannot be
    /// written.
    pub fn take(folder: &Path) -> Result<Self, ApiError> {
        let path = folder.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| io_failure("open the lock file", &path, &error))?;
        let mut taken = try_lock(&file);
        if taken == Err(Errno::WOULDBLOCK) {
            let holder = read_holder(&file);
            if !holder.ends_with(STOPPING) {
                return Err(held(folder, &holder));
            }
            taken = wait_for(&file, &path)?;
        }
        match taken {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(folder, &read_holder(&file))),
            Err(error) => return Err(io_failure("lock", &path, &error.into())),
        }
        let lock = Self { file, path };
        if let Err(error) = lock.write(&std::process::id().to_string()) {
            tracing::warn!(error = %error, "the lock file does not name this process");
        }
        Ok(lock)
    }

    /// Records that this daemon is about to end, so that the next one waits for the lock.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn mark_stopping(&self) -> Result<(), ApiError> {
        self.write(&format!("{} {STOPPING}", std::process::id()))
    }

    /// Overwrites the text in place, always with the same length: the file keeps its one block,
    /// which a file truncated first might not get back on a full disk.
    fn write(&self, text: &str) -> Result<(), ApiError> {
        let line = format!("{text:<width$}\n", width = TEXT_BYTES - 1);
        let written = self.file.write_all_at(line.as_bytes(), 0);
        written.map_err(|error| io_failure("write", &self.path, &error))
    }
}

fn try_lock(file: &File) -> Result<(), Errno> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Waits at most [`STOPPING_GRACE`] for a daemon that is about to end.
fn wait_for(file: &File, path: &Path) -> Result<Result<(), Errno>, ApiError> {
    let waiting = file.try_clone().map_err(|error| io_failure("lock", path, &error))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Both descriptors share one lock. The receiver may have given up.
        let _ = sender.send(flock(&waiting, FlockOperation::LockExclusive));
    });
    Ok(receiver.recv_timeout(STOPPING_GRACE).unwrap_or(Err(Errno::WOULDBLOCK)))
}

/// Process id of the holder, and [`STOPPING`] behind it; `unknown` where the file has no text.
fn read_holder(file: &File) -> String {
    let mut bytes = [0; TEXT_BYTES];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    let text = text.trim();
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        text.to_owned()
    } else {
        "unknown".into()
    }
}

fn held(folder: &Path, holder: &str) -> ApiError {
    let text =
        format!("another daemon (process {holder}) works on the folder `{}`", folder.display());
    ApiError::new(ErrorCode::Busy, text).with_hint(Hint::ShowDaemon).with_hint(Hint::StopDaemon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_process_and_a_released_one_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        let holder = format!("(process {})", std::process::id());
        assert!(refused.message.contains(&holder), "{}", refused.message);
        drop(first);
        assert!(Lock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_stopping_daemon_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        first.mark_stopping().unwrap();
        let path = folder.path().to_owned();
        let second = std::thread::spawn(move || Lock::take(&path));
        drop(first);
        assert!(second.join().unwrap().is_ok());
    }
}
