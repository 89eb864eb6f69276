//! The record of a workspace, on the host and private to its user: which repository is in which
//! folder of the guest, and the files of both at the last common state. A guest has no part in it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use banger_api::{ApiError, ErrorCode, Hint};
use rustix::fs::FlockOperation;

use crate::git::Git;
use crate::manifest::{Entry, Manifest, Objects};
use crate::repository::Repository;

/// First field of a record.
pub(crate) const FORMAT: &[u8] = b"banger workspace 1";

/// Name of the file with the record.
pub(crate) const RECORD: &str = "record";

/// Name of the folder of temporary files.
const TEMPORARY: &str = "tmp";

/// Name of the file with what a push puts in the guest.
const SENDING: &str = "sending";

/// What is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The top folder of the work tree on the host.
    pub repository: PathBuf,
    /// The folder in the guest.
    pub folder: Vec<u8>,
    /// The commit that was sent; none if there was none.
    pub head: Option<String>,
    /// Whether untracked files of the host belong to it.
    pub include_untracked: bool,
    /// The files of both sides at the last common state.
    pub base: Manifest,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.split(|byte| *byte == 0);
        if fields.next()? != FORMAT {
            return None;
        }
        let repository = PathBuf::from(std::ffi::OsString::from_vec(fields.next()?.to_vec()));
        let folder = fields.next()?.to_vec();
        let head = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let include_untracked = fields.next()? == b"untracked";
        let base = fields.filter_map(Manifest::record).collect();
        let head = (!head.is_empty()).then_some(head);
        Some(Self { repository, folder, head, include_untracked, base: Manifest(base) })
    }

    fn bytes(&self) -> Vec<u8> {
        let untracked: &[u8] = if self.include_untracked { b"untracked" } else { b"" };
        let head = self.head.as_deref().unwrap_or_default().as_bytes();
        let fields =
            [FORMAT, self.repository.as_os_str().as_bytes(), &self.folder, head, untracked];
        let mut bytes: Vec<u8> =
            fields.into_iter().flat_map(|field| [field, b"\0".as_slice()].concat()).collect();
        bytes.extend(Manifest::lines(&self.base.0));
        bytes
    }
}

/// The folder with the record of one machine. Commands on it take turns.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Folder of this command's temporary files. Each command has one of its own: programs that a
    /// killed command has started may write to theirs for a moment.
    scratch: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Store {
    /// Makes or opens the folder, and waits for its lock. Unfinished files of an ended command are
    /// removed.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(folder: &Path) -> Result<Self, ApiError> {
        let made = (|| {
            make(folder)?;
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join("lock"))?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            // What is still being written goes with the next command.
            let _ = remove(&folder.join(TEMPORARY));
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let scratch = format!("{TEMPORARY}/{}-{}", std::process::id(), since.as_nanos());
            let scratch = folder.join(scratch);
            DirBuilder::new().recursive(true).mode(0o700).create(&scratch)?;
            make(&folder.join("objects"))?;
            Ok((lock, scratch))
        })();
        match made {
            Ok((lock, scratch)) => Ok(Self { folder: folder.to_owned(), scratch, _lock: lock }),
            Err(error) => Err(of_file(folder, &error)),
        }
    }

    /// Whether there is a record in this folder.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(RECORD).exists()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// There is none, or another version of banger wrote it.
    pub fn record(&self) -> Result<Record, ApiError> {
        let path = self.folder.join(RECORD);
        let bytes = fs::read(&path).map_err(|error| of_file(&path, &error))?;
        Record::parse(&bytes).ok_or_else(|| unknown(&path))
    }

    /// Replaces the record, in one step.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, record: &Record) -> Result<(), ApiError> {
        let (path, new) = (self.folder.join(RECORD), self.temporary(RECORD));
        let saved = (|| {
            let mut file = File::create(&new)?;
            file.write_all(&record.bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        })();
        saved.map_err(|error: io::Error| of_file(&path, &error))
    }

    /// Notes what a push is about to put in the guest, in place of what the last one noted. It is
    /// not flushed: after a failure of power a file may look changed on both sides.
    ///
    /// # Errors
    /// The file system's.
    pub fn note_sending(&self, files: &Manifest) -> Result<(), ApiError> {
        let (path, new) = (self.folder.join(SENDING), self.temporary(SENDING));
        let noted =
            fs::write(&new, Manifest::lines(&files.0)).and_then(|()| fs::rename(&new, &path));
        noted.map_err(|error| of_file(&path, &error))
    }

    /// What a push that did not come to its end wanted to put in the guest.
    pub fn sending(&self) -> Manifest {
        // Without it, such files look changed on both sides.
        Manifest::parse(&fs::read(self.folder.join(SENDING)).unwrap_or_default())
    }

    /// Forgets what a push has put in the guest.
    pub fn forget_sending(&self) {
        // One that stays only names contents that the guest got from here.
        let _ = fs::remove_file(self.folder.join(SENDING));
    }

    /// A file name for a temporary file of this command.
    pub fn temporary(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The objects that stay on record beside those of the repository: files at the common state
    /// that were never added to it.
    ///
    /// # Errors
    /// git's, the file system's.
    pub fn kept_objects(&self, repository: &Repository) -> Result<Objects, ApiError> {
        objects(self.folder.join("objects"), &[&repository.objects()?])
    }

    /// Keeps the contents of files that this command has made objects of: the repository may never
    /// get them, and a comparison needs those of the common state.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep<'a>(&self, files: impl IntoIterator<Item = &'a Entry>) -> Result<(), ApiError> {
        let new = self.temporary("repository").join("objects");
        for entry in files {
            let kept = self.kept(&entry.object);
            let (folder, name) = entry.object.split_at(2);
            let made = kept.parent().map_or(Ok(()), make);
            match made.and_then(|()| fs::hard_link(new.join(folder).join(name), &kept)) {
                Err(error)
                    // There already, or an object of the repository.
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                    ) =>
                {
                    return Err(of_file(&kept, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets contents that no file of the common state has any more.
    pub fn drop_objects(&self, objects: &BTreeSet<String>) {
        for object in objects {
            // One that stays only takes space.
            let _ = fs::remove_file(self.kept(object));
        }
    }

    /// Where an object is kept (gitrepository-layout(5)).
    fn kept(&self, object: &str) -> PathBuf {
        let (folder, name) = object.split_at(2);
        self.folder.join("objects").join(folder).join(name)
    }

    /// A folder for objects of this command only, upon those of the record and the repository.
    ///
    /// # Errors
    /// git's, the file system's.
    pub fn new_objects(&self, repository: &Repository) -> Result<Objects, ApiError> {
        let kept = self.kept_objects(repository)?;
        let ours = kept.ours.as_os_str().as_bytes();
        objects(self.temporary("repository").join("objects"), &[ours, &kept.theirs])
    }

    /// A bare repository of this command, with no configuration but ours, on these objects.
    ///
    /// # Errors
    /// The file system's.
    pub fn bare(&self, objects: &Objects) -> Result<Git, ApiError> {
        let folder = self.temporary("repository");
        let made = (|| {
            make(&folder)?;
            make(&folder.join("refs"))?;
            fs::write(folder.join("HEAD"), "ref: refs/heads/none\n")?;
            fs::write(folder.join("config"), "[core]\nbare = true\nrepositoryFormatVersion = 0\n")
        })();
        made.map_err(|error| of_file(&folder, &error))?;
        let git = objects.used_by(&Git::new(&folder)).with("GIT_DIR", &folder);
        Ok(git.with("GIT_INDEX_FILE", folder.join("index")))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The next command removes it as well.
        let _ = remove(&self.folder.join(TEMPORARY));
    }
}

/// A folder of objects with these others behind it.
pub(crate) fn objects(ours: PathBuf, others: &[&[u8]]) -> Result<Objects, ApiError> {
    let made = (|| {
        let info = ours.join("info");
        DirBuilder::new().recursive(true).mode(0o700).create(&info)?;
        let lines: Vec<u8> = others.iter().flat_map(|path| alternate(path)).collect();
        fs::write(info.join("alternates"), lines)
    })();
    made.map_err(|error| of_file(&ours, &error))?;
    Ok(Objects { theirs: others.last().map(|path| path.to_vec()).unwrap_or_default(), ours })
}

/// A line of `objects/info/alternates` (gitrepository-layout(5)), quoted for any bytes.
fn alternate(path: &[u8]) -> Vec<u8> {
    let mut line = b"\"".to_vec();
    for byte in path {
        match byte {
            b'"' | b'\\' => line.extend([b'\\', *byte]),
            0..=31 | 127..=255 => line.extend(format!("\\{byte:03o}").bytes()),
            _ => line.push(*byte),
        }
    }
    line.extend(b"\"\n");
    line
}

pub(crate) fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The error for a record in another form.
pub(crate) fn unknown(path: &Path) -> ApiError {
    let text = format!("`{}` is not a record that this version reads", path.display());
    ApiError::new(ErrorCode::Corrupt, text)
        .with_hint(Hint::text("`banger cp` copies files of the machine"))
}

/// An error of a file of the record.
pub(crate) fn of_file(path: &Path, error: &io::Error) -> ApiError {
    let text = format!("`{}` cannot be used", path.display());
    ApiError::new(ErrorCode::of_io(error), text).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("workspace")).unwrap();
        let listing = format!("100644 {} 0\todd\n\tname\0", "b".repeat(40));
        let mut record = Record {
            repository: PathBuf::from(std::ffi::OsString::from_vec(b"/a \n\xff".to_vec())),
            folder: b"/root/a \n\xff".to_vec(),
            head: Some("a".repeat(40)),
            include_untracked: true,
            base: Manifest::parse(listing.as_bytes()),
        };
        store.save(&record).unwrap();
        assert_eq!(store.record().unwrap(), record);
        record.head = None;
        record.include_untracked = false;
        record.base = Manifest::default();
        store.save(&record).unwrap();
        assert_eq!(store.record().unwrap(), record);
        fs::write(folder.path().join("workspace/record"), "banger workspace 9\0").unwrap();
        let error = store.record().unwrap_err();
        assert!(error.message.contains("not a record"), "{error:?}");
    }

    #[test]
    fn an_ended_command_leaves_nothing_to_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("workspace");
        let store = Store::open(&at).unwrap();
        let of_first = store.temporary("x");
        fs::write(&of_first, "x").unwrap();
        std::mem::forget(store);
        // The lock is still held by this process: another open file would wait for it.
        fs::remove_file(at.join("lock")).unwrap();
        let store = Store::open(&at).unwrap();
        assert!(!of_first.exists());
        // What the first one has started goes on, and changes nothing of the second.
        assert!(fs::write(&of_first, "late").is_err());
        assert_ne!(store.temporary("x"), of_first);
        drop(store);
        assert!(!at.join("tmp").exists());
    }
}
