//! One daemon per state folder: a lock on a file that says who holds it.
//!
//! The kernel lets go of the lock (flock(2)) when its holder ends, however it ends, so a lock is
//! never stale. The run folder has one of its own: two state folders must not share sockets.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use banger_api::{ApiError, ErrorCode};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::io_failure;

/// Name of the lock file in its folder.
pub const FILE: &str = "bangerd.lock";
/// How long a daemon that is on its way out is waited for: a little more than it may take.
const STOPPING_GRACE: Duration = Duration::from_secs(40);
/// Longest text that is read from a lock file.
const MAX_TEXT: u64 = 64;
/// Behind the pid in the file of a daemon that is on its way out.
const STOPPING: &str = "stopping";

/// A held lock; let go when dropped.
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
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| io_failure("open the lock file", &path, &error))?;
        let mut taken = try_lock(&file);
        if taken == Err(Errno::WOULDBLOCK) {
            let holder = read_holder(&mut file);
            if !holder.ends_with(STOPPING) {
                return Err(held(folder, &holder));
            }
            taken = wait_for(&file, &path)?;
        }
        match taken {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(folder, &read_holder(&mut file))),
            Err(error) => return Err(io_failure("lock", &path, &error.into())),
        }
        let mut lock = Self { file, path };
        lock.say(&std::process::id().to_string())?;
        Ok(lock)
    }

    /// Lets those who want the lock know that waiting is worth it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say_stopping(&mut self) -> Result<(), ApiError> {
        self.say(&format!("{} {STOPPING}", std::process::id()))
    }

    fn say(&mut self, text: &str) -> Result<(), ApiError> {
        let file = &mut self.file;
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()));
        written.map_err(|error| io_failure("write", &self.path, &error))
    }
}

fn try_lock(file: &File) -> Result<(), Errno> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Waits, bounded, for a daemon that said it was stopping.
fn wait_for(file: &File, path: &Path) -> Result<Result<(), Errno>, ApiError> {
    let waiting = file.try_clone().map_err(|error| io_failure("lock", path, &error))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Both descriptors share one lock, so what this thread gets is ours. Nobody may listen.
        let _ = sender.send(flock(&waiting, FlockOperation::LockExclusive));
    });
    Ok(receiver.recv_timeout(STOPPING_GRACE).unwrap_or(Err(Errno::WOULDBLOCK)))
}

fn read_holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| {
        // A lock file that cannot be read only makes the message poorer.
        file.take(MAX_TEXT).read_to_string(&mut text)
    });
    match read {
        Ok(_) if text.starts_with(|first: char| first.is_ascii_digit()) => text,
        _ => String::from("unknown"),
    }
}

fn held(folder: &Path, holder: &str) -> ApiError {
    let text =
        format!("another daemon (process {holder}) works on the folder `{}`", folder.display());
    ApiError::new(ErrorCode::Busy, text)
        .with_hint("`banger daemon status` shows it; `banger daemon stop` ends it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hears_who_was_first_and_the_third_gets_it() {
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
    fn one_that_is_stopping_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Lock::take(folder.path()).unwrap();
        first.say_stopping().unwrap();
        let path = folder.path().to_owned();
        let second = std::thread::spawn(move || Lock::take(&path));
        drop(first);
        assert!(second.join().unwrap().is_ok());
    }
}
