//! Folders in which objects are created before they are published.
//!
//! The creating process locks its folder (flock(2)), so the clean-up after a crash skips folders of
//! running processes.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{FetchError, PathContext};

/// A staging folder; removed with its content when dropped.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    _lock: File,
}

impl Staging {
    /// Creates a folder in `parent`, mode 0700.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn new(parent: &Path) -> Result<Self, FetchError> {
        make_folders(parent)?;
        loop {
            let path = parent.join(format!("{:016x}", random()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(FetchError::io("make the folder", &path, error)),
            }
            let lock = File::open(&path).at("open", &path)?;
            // A clean-up between the two calls may have removed the folder: retry.
            let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
            if locked.is_ok() && path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path within the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next clean-up removes a folder that cannot be removed now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn random() -> u64 {
    // Only collisions matter, and they are handled by a retry.
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

/// Creates a folder and its parents, mode 0700.
///
/// # Errors
/// mkdir(2).
pub fn make_folders(path: &Path) -> Result<(), FetchError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).at("make the folder", path)
}

/// Whether no process works in this staging folder.
pub fn is_abandoned(path: &Path) -> bool {
    let Ok(lock) = File::open(path) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Removes resources that a staging folder refers to elsewhere.
pub type RemoveElsewhere<'a> = &'a dyn Fn(&Path) -> Result<(), FetchError>;

/// Removes the staging folders of ended processes, each after `before` has removed its resources
/// elsewhere; returns the freed bytes.
///
/// # Errors
/// The first error, after all other folders were removed.
pub fn clean(parent: &Path, before: RemoveElsewhere<'_>) -> Result<u64, FetchError> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(FetchError::io("read the folder", parent, error)),
    };
    let mut freed = 0;
    let mut failed = None;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(lock) = File::open(&path) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let used = super::used_bytes(&path);
        match before(&path).and_then(|()| fs::remove_dir_all(&path).at("remove", &path)) {
            Ok(()) => freed += used,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(freed), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_up_skips_objects_in_progress() {
        let parent = tempfile::tempdir().unwrap();
        let live = Staging::new(parent.path()).unwrap();
        fs::write(live.join("half"), "x").unwrap();
        let dead = parent.path().join("0123");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("big"), vec![1; 100_000]).unwrap();
        assert!(clean(parent.path(), &|_| Ok(())).unwrap() >= 100_000);
        assert!(live.join("half").exists() && !dead.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
        assert_eq!(clean(&parent.path().join("nowhere"), &|_| Ok(())).unwrap(), 0);
    }
}
