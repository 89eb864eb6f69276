//! Changes of files in a work tree, all or none: everything is prepared aside, written down, and
//! then done by renames. [`recover`] undoes what an interrupted program has begun.
//!
//! Aside is `banger-pull` in the folder of the work tree's state (`.git`): `new/` has the files to
//! be put in place, `old/` those that were taken away, `journal` the list of effects while they are
//! done. Once it is called `done`, all are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};
use banger_archive::beneath::{Folder, Links, split_last};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::compare::{Change, folders};
use crate::git::Git;
use crate::journal::{Effect, Journal};
use crate::manifest::{Kind, Manifest};
use crate::repository::Repository;
use crate::store::of_file;

/// Name of the folder.
const ASIDE: &str = "banger-pull";

/// stat(2) data of a file, to find out whether it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The files at some paths; none where there is nothing.
pub type Stamps = BTreeMap<Vec<u8>, Option<Stamp>>;

/// stat(2) data of what is at a path now, with no symlink on the way.
///
/// # Errors
/// A symlink or a file on the way; the file system's.
pub fn stamp(top: &Folder, path: &[u8]) -> io::Result<Option<Stamp>> {
    let (parent, name) = split_last(path).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = match top.folder(parent, Links::Refuse) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        parent => parent?,
    };
    let found = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => found?,
    };
    Ok(Some(Stamp {
        device: found.st_dev,
        inode: found.st_ino,
        size: found.st_size,
        mode: found.st_mode,
        modified: (found.st_mtime, found.st_mtime_nsec as i64),
        changed: (found.st_ctime, found.st_ctime_nsec as i64),
    }))
}

impl Stamp {
    fn is_folder(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }

    /// What a rename leaves alone.
    pub(crate) fn identity(&self) -> (u64, i64, (i64, i64)) {
        (self.inode, self.size, self.modified)
    }
}

/// The folder aside, held by this command.
pub(crate) struct Aside {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Aside {
    /// Opens the folder, if there is one.
    fn open(repository: &Repository) -> Result<Option<Self>, ApiError> {
        let path = repository.git_dir().join(ASIDE);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(of_file(&path, &error)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path, _lock: lock })),
            Err(Errno::AGAIN) => {
                let text = format!("another pull into `{}` is running", repository.top().display());
                Err(ApiError::new(ErrorCode::Busy, text))
            }
            Err(error) => Err(of_file(&path, &error.into())),
        }
    }

    fn make(repository: &Repository) -> Result<Self, ApiError> {
        recover(repository)?;
        let path = repository.git_dir().join(ASIDE);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| of_file(&path, &error))?;
        Self::open(repository)?.ok_or_else(|| of_file(&path, &io::ErrorKind::NotFound.into()))
    }

    fn remove(self) -> Result<(), ApiError> {
        fs::remove_dir_all(&self.path).map_err(|error| of_file(&self.path, &error))
    }
}

/// Undoes a pull that was interrupted, in this repository.
///
/// # Errors
/// Another pull is running; a file was changed since, so that it is not known which content is
/// wanted: then nothing is lost, and the error names the files.
pub fn recover(repository: &Repository) -> Result<(), ApiError> {
    let Some(aside) = Aside::open(repository)? else { return Ok(()) };
    if let Some(journal) = Journal::read(&aside.path)? {
        journal.undo(&repository.folder()?, &aside.path)?;
    }
    aside.remove()
}

/// Makes changes in the work tree. `seen`: the files when the changes were found. `before` is
/// called before each effect.
///
/// # Errors
/// A file that was changed meanwhile, or is in the way; the file system's. The work tree is as it
/// was then.
pub fn place(
    repository: &Repository,
    objects: &Git,
    changes: &[Change],
    seen: &Stamps,
    before: &dyn Fn(),
) -> Result<(), ApiError> {
    let top = repository.folder()?;
    let aside = Aside::make(repository)?;
    let planned = stage(objects, changes, &aside.path, &top)
        .and_then(|()| plan(repository, &top, changes, seen, &aside.path));
    let journal = match planned {
        Ok(journal) => journal,
        Err(error) => return aside.remove().and(Err(error)),
    };
    before();
    journal.write(&aside.path)?;
    if let Err(error) = journal.run(&top, &aside.path, before) {
        journal.undo(&top, &aside.path)?;
        return aside.remove().and(Err(error));
    }
    before();
    Journal::finish(&aside.path)?;
    before();
    for change in changes.iter().filter(|change| change.now.is_none()) {
        remove_empty_folders(&top, &change.path);
    }
    aside.remove()
}

/// Writes the new files to `new/`, with the line ends of this work tree.
fn stage(git: &Git, changes: &[Change], aside: &Path, top: &Folder) -> Result<(), ApiError> {
    let new = aside.join("new");
    let made = DirBuilder::new().mode(0o700).create(&new);
    made.and_then(|()| fs::create_dir(aside.join("old"))).map_err(|error| of_file(&new, &error))?;
    let files = || changes.iter().filter_map(|change| Some((&change.path, change.now.as_ref()?)));
    let git = git.with("GIT_INDEX_FILE", aside.join("index"));
    git.output(["read-tree", "--empty"])?;
    git.filter(&["update-index", "-z", "--index-info"], Manifest::lines(files()))?;
    let mut prefix = b"--prefix=".to_vec();
    prefix.extend_from_slice(new.as_os_str().as_bytes());
    prefix.push(b'/');
    let prefix = std::ffi::OsStr::from_bytes(&prefix);
    git.output(["checkout-index".as_ref(), "--all".as_ref(), "--force".as_ref(), prefix])?;
    for (path, entry) in files().filter(|(_, entry)| entry.kind != Kind::Link) {
        let at = new.join(std::ffi::OsStr::from_bytes(path));
        let finished = (|| {
            let file = File::open(&at)?;
            // Whoever may read a file today may read the new one: no more, no less.
            let old = stamp(top, path).unwrap_or_default();
            if let Some(old) = old.filter(|old| !old.is_folder()) {
                let all = old.mode & 0o666;
                let run = if entry.kind == Kind::Program { (all & 0o444) >> 2 } else { 0 };
                file.set_permissions(fs::Permissions::from_mode(all | run))?;
            }
            file.sync_all()
        })();
        finished.map_err(|error| of_file(&at, &error))?;
    }
    Ok(())
}

/// The effects, after a check that nothing has changed since the changes were found.
fn plan(
    repository: &Repository,
    top: &Folder,
    changes: &[Change],
    seen: &Stamps,
    aside: &Path,
) -> Result<Journal, ApiError> {
    let taken: BTreeSet<&[u8]> = changes
        .iter()
        .filter(|change| change.base.is_some())
        .map(|change| change.path.as_slice())
        .collect();
    let device = fs::metadata(aside).map_err(|error| of_file(aside, &error))?.dev();
    let (mut takes, mut gone, mut made, mut puts) =
        (Vec::new(), BTreeSet::new(), BTreeSet::new(), Vec::new());
    for change in changes {
        let path = &change.path;
        let blocked = |what: &str| blocked(repository, path, what);
        let now = match now_at(top, path, &taken) {
            Ok(now) => now,
            Err(error) => {
                return Err(blocked("cannot be reached: a symlink or a file is on the way")
                    .caused_by(&error));
            }
        };
        match (now, &change.base) {
            (Some(now), Some(_)) if !now.is_folder() => {
                if seen.get(path) != Some(&Some(now)) {
                    return Err(blocked("was changed meanwhile"));
                }
                takes.push(Effect::Take { path: path.clone(), was: now.identity() });
            }
            (Some(now), None) if now.is_folder() => {
                empty_folders(top, path, &taken, &mut gone)
                    .map_err(|inner| blocked(&format!("is a folder with `{inner}` in it")))?;
            }
            (None, None) => {}
            (None, Some(_)) => return Err(blocked("was deleted meanwhile")),
            (Some(_), _) => return Err(blocked("is here already, and differs")),
        }
        if change.now.is_none() {
            continue;
        }
        for folder in folders(path) {
            match now_at(top, folder, &taken) {
                Ok(Some(found)) if found.is_folder() && found.device != device => {
                    return Err(blocked("is on another file system than `.git`"));
                }
                Ok(Some(found)) if found.is_folder() => {}
                _ => drop(made.insert(folder.to_vec())),
            }
        }
        let at = aside.join("new").join(std::ffi::OsStr::from_bytes(path));
        let new = Folder::open(aside.join("new"))
            .and_then(|new| stamp(&new, path))
            .map_err(|error| of_file(&at, &error))?;
        let new = new.ok_or_else(|| of_file(&at, &io::ErrorKind::NotFound.into()))?;
        puts.push(Effect::Put { path: path.clone(), new: new.identity() });
    }
    let mut effects = takes;
    // Inner folders first, then outer ones.
    effects.extend(gone.into_iter().rev().map(|(path, mode)| Effect::RemoveFolder { path, mode }));
    effects.extend(made.into_iter().map(|path| Effect::MakeFolder { path }));
    effects.extend(puts);
    Ok(Journal { effects })
}

/// What is at a path, once the files that are taken away are gone.
fn now_at(top: &Folder, path: &[u8], taken: &BTreeSet<&[u8]>) -> io::Result<Option<Stamp>> {
    if folders(path).any(|folder| taken.contains(folder)) {
        return Ok(None);
    }
    stamp(top, path)
}

/// The folders at and in `path`, whose files are all taken away; else the name of another file.
fn empty_folders(
    top: &Folder,
    path: &[u8],
    taken: &BTreeSet<&[u8]>,
    found: &mut BTreeSet<(Vec<u8>, u32)>,
) -> Result<(), String> {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = top.open_beneath(path, flags, Links::Refuse)?;
        let mode = rustix::fs::fstat(&folder)?.st_mode;
        Ok::<_, io::Error>((rustix::fs::Dir::read_from(&folder)?, mode))
    };
    let (entries, mode) = open().map_err(|_| shown(path))?;
    found.insert((path.to_vec(), mode & 0o7777));
    for entry in entries {
        let entry = entry.map_err(|_| shown(path))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let inner = [path, b"/", name].concat();
        match stamp(top, &inner) {
            Ok(Some(stamp)) if stamp.is_folder() => empty_folders(top, &inner, taken, found)?,
            _ if taken.contains(inner.as_slice()) => {}
            _ => return Err(shown(name)),
        }
    }
    Ok(())
}

/// Removes the folders that a path was in, as far as they are empty now; git keeps none either.
fn remove_empty_folders(top: &Folder, path: &[u8]) {
    let all: Vec<&[u8]> = folders(path).collect();
    for folder in all.into_iter().rev() {
        let removed = split_last(folder).map(|(parent, name)| {
            let parent = top.folder(parent, Links::Refuse)?;
            rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(io::Error::from)
        });
        if !matches!(removed, Some(Ok(()))) {
            break;
        }
    }
}

fn blocked(repository: &Repository, path: &[u8], what: &str) -> ApiError {
    let path = String::from_utf8_lossy(path);
    let text = format!("`{path}` {what}; nothing was changed in `{}`", repository.top().display());
    ApiError::new(ErrorCode::WrongState, text).with_hint(Hint::text(
        "`banger vm workspace status` shows both sides; `pull --branch NAME` puts the machine's \
         changes on a branch",
    ))
}

/// Writes a file and has it on the disk.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Moves a file, onto nothing.
pub(crate) fn rename(from: (&Folder, &[u8]), to: (&Folder, &[u8])) -> io::Result<()> {
    let part = |(top, path): (&Folder, &[u8])| {
        let (parent, name) = split_last(path).ok_or(io::ErrorKind::InvalidInput)?;
        Ok::<_, io::Error>((top.folder(parent, Links::Refuse)?, name.to_vec()))
    };
    let ((from, old), (to, new)) = (part(from)?, part(to)?);
    let moved = rustix::fs::renameat_with(
        &from,
        old.as_slice(),
        &to,
        new.as_slice(),
        RenameFlags::NOREPLACE,
    );
    Ok(moved?)
}

/// Makes a folder with the user's own mask.
pub(crate) fn make_folder(top: &Folder, path: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = split_last(path).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = top.folder(parent, Links::Refuse)?;
    Ok(rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode))?)
}

/// Removes an empty folder.
pub(crate) fn remove_folder(top: &Folder, path: &[u8]) -> io::Result<()> {
    let (parent, name) = split_last(path).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = top.folder(parent, Links::Refuse)?;
    Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}
