//! Downloaded documents and layers, by digest.
//!
//! ```text
//! <data>/layers/<SHA-256>        a whole file
//! <data>/layers/<SHA-256>.part   an unfinished download, locked by the process that continues it
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::fetch::{FetchError, PathContext, make_folders, used_bytes};
use crate::images::Digest;

/// Suffix of an unfinished download.
const PART: &str = ".part";
/// Unfinished downloads are removed when nothing was added for this time.
const KEEP_PARTS: Duration = Duration::from_secs(7 * 24 * 3600);
/// Whole files are removed when no pull has used them for this time.
const KEEP_WHOLE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The folder of downloads.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache in this folder, which is created when needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the folder.
    ///
    /// # Errors
    /// mkdir(2).
    pub fn create(&self) -> Result<(), FetchError> {
        make_folders(&self.folder)
    }

    /// Path of a whole file.
    pub fn whole(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// Path of an unfinished download.
    pub fn part(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}{PART}", digest.hex()))
    }

    /// Opens an unfinished download, or begins one; `None` while another process or task has it.
    ///
    /// # Errors
    /// open(2).
    pub fn lock_part(&self, digest: &Digest) -> Result<Option<File>, FetchError> {
        let path = self.part(digest);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).at("create", &path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // The other one may have finished it in between.
        use std::os::unix::fs::MetadataExt;
        let same = |one: fs::Metadata, two: fs::Metadata| one.ino() == two.ino();
        let opened = file.metadata().at("look at", &path)?;
        Ok(fs::metadata(&path).is_ok_and(|there| same(there, opened)).then_some(file))
    }

    /// Makes a download a whole file.
    ///
    /// # Errors
    /// fsync(2), rename(2).
    pub fn publish(&self, digest: &Digest, part: &File) -> Result<(), FetchError> {
        let path = self.part(digest);
        part.sync_all().at("write", &path)?;
        let whole = self.whole(digest);
        fs::rename(&path, &whole).at("publish", &whole)
    }

    /// Marks a whole file as used now.
    pub fn touch(&self, digest: &Digest) {
        // Best effort: at worst it is downloaded again.
        if let Ok(file) = File::open(self.whole(digest)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Removes unfinished downloads of a week ago, and whole files that no pull has used for a
    /// month; returns the freed bytes.
    ///
    /// # Errors
    /// unlink(2).
    pub fn clean(&self) -> Result<u64, FetchError> {
        let now = SystemTime::now();
        let is_old = |path: &Path, modified: SystemTime| {
            let limit = if is_part(path) { KEEP_PARTS } else { KEEP_WHOLE };
            now.duration_since(modified).is_ok_and(|age| age > limit)
        };
        self.remove(&is_old)
    }

    /// Removes all files that are not in use; returns the freed bytes.
    ///
    /// # Errors
    /// unlink(2).
    pub fn prune(&self) -> Result<u64, FetchError> {
        self.remove(&|_, _| true)
    }

    fn remove(&self, wanted: &dyn Fn(&Path, SystemTime) -> bool) -> Result<u64, FetchError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(FetchError::io("read the folder", &self.folder, error)),
        };
        let mut freed = 0;
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(file) = File::open(&path) else { continue };
            let modified = file.metadata().and_then(|meta| meta.modified());
            if !modified.is_ok_and(|time| wanted(&path, time))
                || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
            {
                continue;
            }
            let used = used_bytes(&path);
            fs::remove_file(&path).at("remove", &path)?;
            freed += used;
        }
        Ok(freed)
    }
}

fn is_part(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(PART.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_downloads_are_removed_unless_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("layers"));
        assert_eq!(cache.clean().unwrap(), 0);
        cache.create().unwrap();
        let digest = |digit: &str| Digest::of_hex(&digit.repeat(64)).unwrap();
        let days_ago = |file: &File, days: u64| {
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            file.set_modified(then).unwrap();
        };
        for (digit, days) in [("a", 1), ("b", 8), ("c", 40)] {
            let part = cache.lock_part(&digest(digit)).unwrap().unwrap();
            days_ago(&part, days);
            let whole = cache.lock_part(&digest(&digit.replace('c', "e"))).unwrap();
            assert!(whole.is_none() || digit == "c");
        }
        let whole = cache.lock_part(&digest("d")).unwrap().unwrap();
        cache.publish(&digest("d"), &whole).unwrap();
        days_ago(&whole, 20);
        drop(whole);
        let busy = cache.lock_part(&digest("b")).unwrap().unwrap();
        days_ago(&busy, 8);
        assert!(cache.lock_part(&digest("b")).unwrap().is_none(), "another one has it");
        cache.clean().unwrap();
        let left = |digit: &str| cache.part(&digest(digit)).exists();
        assert!(left("a") && left("b") && !left("c") && cache.whole(&digest("d")).exists());
        drop(busy);
        cache.clean().unwrap();
        assert!(!left("b"));
        cache.prune().unwrap();
        assert_eq!(fs::read_dir(cache.folder()).unwrap().count(), 0);
    }
}
