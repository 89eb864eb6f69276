//! Files that get their name when they are complete.
//!
//! A file without a name (`O_TMPFILE` of open(2)) is removed by the kernel with its writer. One
//! that replaces another is exchanged with it (renameat2(2)); what comes out is compared with what
//! was to be replaced, and put back if a program changed it in between.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use banger_archive::beneath::Owner;
use banger_archive::temporary_name;
use rustix::fs::{self, AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use crate::failed::Failed;
use crate::files::stamp_of;
use crate::{Cause, Stamp};

/// A file that is being written.
pub struct Staged {
    pub(crate) parent: OwnedFd,
    pub(crate) name: Vec<u8>,
    pub(crate) file: File,
    /// Its name on a file system without `O_TMPFILE`.
    temporary: Option<Vec<u8>>,
}

impl Staged {
    /// A new file that will have this name in `parent`.
    pub fn create(parent: OwnedFd, name: Vec<u8>) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match fs::openat(&parent, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(Self { parent, name, file: file.into(), temporary: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        let temporary = temporary_name();
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = fs::openat(&parent, temporary.as_slice(), flags, mode)?;
        Ok(Self { parent, name, file: file.into(), temporary: Some(temporary) })
    }

    /// Sets owner and mode.
    pub fn set_up(&self, mode: u32, owner: Option<Owner>) -> io::Result<()> {
        if let Some((uid, gid)) = owner.map(ids) {
            fs::fchown(&self.file, Some(uid), Some(gid))?;
        }
        Ok(fs::fchmod(&self.file, Mode::from_raw_mode(mode))?)
    }

    /// Gives the file its name in place of `expected`.
    pub(crate) fn finish(mut self, expected: Option<&Stamp>) -> Result<(), Failed> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None if expected.is_none() => return Ok(self.link(&self.name)?),
            None => {
                let temporary = temporary_name();
                self.link(&temporary)?;
                temporary
            }
        };
        place(&self.parent, &temporary, &self.name, expected)
    }

    /// As open(2) describes it for callers without privilege.
    fn link(&self, name: &[u8]) -> rustix::io::Result<()> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::linkat(CWD, path, &self.parent, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            remove(&self.parent, temporary);
        }
    }
}

/// Gives `temporary` the name `name` in place of `expected`, or removes it.
pub(crate) fn place(
    parent: &OwnedFd,
    temporary: &[u8],
    name: &[u8],
    expected: Option<&Stamp>,
) -> Result<(), Failed> {
    let placed = match expected {
        None => rename_new(parent, temporary, name).map_err(Failed::from),
        Some(expected) => exchange(parent, temporary, name, expected),
    };
    if placed.is_err() {
        remove(parent, temporary);
    }
    placed
}

fn exchange(
    parent: &OwnedFd,
    temporary: &[u8],
    name: &[u8],
    expected: &Stamp,
) -> Result<(), Failed> {
    match fs::renameat_with(parent, temporary, parent, name, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // The file system cannot: what was checked before is replaced.
        Err(Errno::INVAL) => return Ok(fs::renameat(parent, temporary, parent, name)?),
        Err(errno) => return Err(errno.into()),
    }
    if !stamp_of(parent, temporary)?.is_renamed(expected) {
        fs::renameat_with(parent, temporary, parent, name, RenameFlags::EXCHANGE)?;
        return Err(Failed::new(Cause::Changed, "it changed meanwhile"));
    }
    remove(parent, temporary);
    Ok(())
}

/// Renames without replacing.
pub(crate) fn rename_new(parent: impl AsFd, from: &[u8], to: &[u8]) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    match fs::renameat_with(parent, from, parent, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => {}
        renamed => return renamed,
    }
    // The file system cannot: a hard link does not replace either.
    fs::linkat(parent, from, parent, to, AtFlags::empty())?;
    fs::unlinkat(parent, from, AtFlags::empty())
}

fn remove(parent: &OwnedFd, name: &[u8]) {
    // Only tidying; a later list removes what is left.
    let _ = fs::unlinkat(parent, name, AtFlags::empty());
}

pub(crate) fn ids(owner: Owner) -> (Uid, Gid) {
    (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid))
}
