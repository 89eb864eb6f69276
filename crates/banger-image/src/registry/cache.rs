//! Downloaded documents and layers, by digest.
//!
//! ```text
//! <data>/layers/<SHA-256>        a whole file
//! <data>/layers/<SHA-256>.part   an unfinished download, locked by the process that continues it
//! ```
//!
//! A whole file is locked (shared) while a pull checks it and links it elsewhere. What is locked is
//! not removed.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Its name.
    pub name: String,
    /// Allocated bytes.
    pub bytes: u64,
    /// Whether a pull is using it.
    pub in_use: bool,
}

/// Result of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The file was removed, which freed so many bytes.
    Removed(u64),
    /// A pull is using it.
    InUse,
    /// There is no such file.
    Absent,
}

/// A whole file, if there is one.
#[derive(Debug)]
pub enum Whole {
    /// The file, which is not removed while this is open.
    Held(File),
    /// Another process is publishing or removing it.
    Busy,
    /// There is none.
    Absent,
}

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
        Ok(is_at(&file, &path)?.then_some(file))
    }

    /// Makes a download a whole file; `part` is locked as that of [`Self::hold`].
    ///
    /// # Errors
    /// fsync(2), rename(2).
    pub fn publish(&self, digest: &Digest, part: &File) -> Result<(), FetchError> {
        let path = self.part(digest);
        part.sync_all().at("write", &path)?;
        let whole = self.whole(digest);
        fs::rename(&path, &whole).at("publish", &whole)?;
        flock(part, FlockOperation::NonBlockingLockShared).at("lock", &whole)
    }

    /// Opens a whole file so that it is not removed.
    ///
    /// # Errors
    /// open(2).
    pub fn hold(&self, digest: &Digest) -> Result<Whole, FetchError> {
        let path = self.whole(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whole::Absent),
            file => file.at("open", &path)?,
        };
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(Whole::Busy);
        }
        // It may have been removed before it was locked.
        Ok(if is_at(&file, &path)? { Whole::Held(file) } else { Whole::Absent })
    }

    /// Gives a held file a second name, or copies it where that is on another file system.
    ///
    /// # Errors
    /// link(2), and those of a copy.
    pub fn link(&self, digest: &Digest, to: &Path) -> Result<(), FetchError> {
        let from = self.whole(digest);
        if fs::hard_link(&from, to).is_err() {
            fs::copy(&from, to).at("copy", &from)?;
        }
        Ok(())
    }

    /// All files, sorted by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn files(&self) -> Result<Vec<Cached>, FetchError> {
        let file = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.to_owned();
            let in_use = !is_unused(&File::open(&path).ok()?);
            Some(Cached { name, bytes: used_bytes(&path), in_use })
        };
        let mut files: Vec<Cached> = self.paths()?.into_iter().filter_map(file).collect();
        files.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(files)
    }

    /// Removes one file by its name, unless it is in use.
    ///
    /// # Errors
    /// unlink(2).
    pub fn remove_file(&self, name: &str) -> Result<Removal, FetchError> {
        let path = self.paths()?.into_iter().find(|path| path.file_name() == Some(name.as_ref()));
        let Some(path) = path else { return Ok(Removal::Absent) };
        match File::open(&path) {
            Ok(file) => remove_unused(&path, &file),
            Err(_) => Ok(Removal::Absent),
        }
    }

    fn paths(&self) -> Result<Vec<PathBuf>, FetchError> {
        match fs::read_dir(&self.folder) {
            Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(FetchError::io("read the folder", &self.folder, error)),
        }
    }

    /// Marks a whole file as used now.
    pub fn touch(&self, digest: &Digest) {
        // Best effort: at worst it is downloaded again. The time of the content stays, since
        // another pull may be reading it, and would find it changed.
        if let Ok(file) = File::open(self.whole(digest)) {
            let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        }
    }

    /// Removes unfinished downloads of a week ago, and whole files that no pull has used for a
    /// month; returns the freed bytes.
    ///
    /// # Errors
    /// unlink(2).
    pub fn clean(&self) -> Result<u64, FetchError> {
        let now = SystemTime::now();
        let is_old = |path: &Path, used: SystemTime| {
            let limit = if is_part(path) { KEEP_PARTS } else { KEEP_WHOLE };
            now.duration_since(used).is_ok_and(|age| age > limit)
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
        let mut freed = 0;
        for path in self.paths()? {
            let Ok(file) = File::open(&path) else { continue };
            let used = file.metadata().and_then(|meta| Ok(meta.modified()?.max(meta.accessed()?)));
            if used.is_ok_and(|time| wanted(&path, time))
                && let Removal::Removed(bytes) = remove_unused(&path, &file)?
            {
                freed += bytes;
            }
        }
        Ok(freed)
    }
}

/// Locks a file until it is closed, unless it is in use.
fn is_unused(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn remove_unused(path: &Path, file: &File) -> Result<Removal, FetchError> {
    if !is_unused(file) {
        return Ok(Removal::InUse);
    }
    let bytes = used_bytes(path);
    fs::remove_file(path).at("remove", path)?;
    Ok(Removal::Removed(bytes))
}

/// Whether this open file is the one at a path.
fn is_at(file: &File, path: &Path) -> Result<bool, FetchError> {
    let opened = file.metadata().at("look at", path)?;
    Ok(fs::metadata(path).is_ok_and(|there| there.ino() == opened.ino()))
}

fn is_part(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(PART.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("layers"));
        cache.create().unwrap();
        assert_eq!(cache.files().unwrap(), []);
        let digest = Digest::of_hex(&"a".repeat(64)).unwrap();
        assert!(matches!(cache.hold(&digest).unwrap(), Whole::Absent));
        let part = cache.lock_part(&digest).unwrap().unwrap();
        fs::write(cache.part(&digest), vec![1; 100_000]).unwrap();
        let [part_file] = &cache.files().unwrap()[..] else { panic!() };
        assert!(part_file.in_use && part_file.name.ends_with(".part"));
        assert_eq!(cache.remove_file(&part_file.name).unwrap(), Removal::InUse);
        cache.publish(&digest, &part).unwrap();
        // The pull that has published it, and a second one.
        let Whole::Held(second) = cache.hold(&digest).unwrap() else { panic!() };
        assert_eq!(cache.remove_file(digest.hex()).unwrap(), Removal::InUse);
        drop(part);
        assert_eq!(cache.prune().unwrap(), 0);
        let link = folder.path().join("link");
        cache.link(&digest, &link).unwrap();
        drop(second);
        assert!(!cache.files().unwrap()[0].in_use);
        for (name, expected) in [("../link", Removal::Absent), ("", Removal::Absent)] {
            assert_eq!(cache.remove_file(name).unwrap(), expected);
        }
        let removed = cache.remove_file(digest.hex()).unwrap();
        assert!(matches!(removed, Removal::Removed(100_000..)), "{removed:?}");
        assert_eq!(fs::read(link).unwrap().len(), 100_000);
        assert_eq!(cache.remove_file(digest.hex()).unwrap(), Removal::Absent);
    }

    #[test]
    fn old_downloads_are_removed_unless_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("layers"));
        assert_eq!(cache.clean().unwrap(), 0);
        cache.create().unwrap();
        let digest = |digit: &str| Digest::of_hex(&digit.repeat(64)).unwrap();
        let days_ago = |file: &File, days: u64| {
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
        };
        for (digit, days) in [("a", 1), ("b", 8), ("c", 40)] {
            let part = cache.lock_part(&digest(digit)).unwrap().unwrap();
            days_ago(&part, days);
            let whole = cache.lock_part(&digest(&digit.replace('c', "e"))).unwrap();
            assert!(whole.is_none() || digit == "c");
        }
        let whole = cache.lock_part(&digest("d")).unwrap().unwrap();
        cache.publish(&digest("d"), &whole).unwrap();
        days_ago(&whole, 40);
        let content = whole.metadata().unwrap().modified().unwrap();
        cache.touch(&digest("d"));
        assert_eq!(whole.metadata().unwrap().modified().unwrap(), content);
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
