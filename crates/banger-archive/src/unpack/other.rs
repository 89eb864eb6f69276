//! Folders, symlinks, hard links and named pipes.

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{LateFolder, MAX_LATE_FOLDERS, Unpacker};
use crate::beneath::{Folder, Links, MAX_PATH, Owner, split_last};
use crate::entry::Entry;
use crate::new_file::{remove_leftovers, temporary_name};

impl Unpacker<'_> {
    pub(super) fn put_folder(
        &mut self,
        parent: &Folder,
        name: &[u8],
        entry: &Entry,
    ) -> io::Result<()> {
        match fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            // A folder that was there before stays as it is.
            Err(Errno::EXIST) if parent.kind_of(name) == Some(FileType::Directory) => {
                if let Ok(inner) = parent.folder(name, Links::Refuse) {
                    remove_leftovers(&inner);
                }
                return Ok(());
            }
            Err(Errno::EXIST) => return Err(Errno::NOTDIR.into()),
            Err(errno) => return Err(errno.into()),
        }
        let (mode, times) = (self.mode(entry), entry.times());
        let is_late = self.late.len() < MAX_LATE_FOLDERS;
        if is_late {
            let path = entry.path.clone();
            self.late.push(LateFolder { path, mode: mode.as_raw_mode(), times });
        }
        let owner = self.owner(entry);
        if owner.is_none() && is_late {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let handle = parent.open_beneath(name, flags, Links::Refuse)?;
        if let Some((uid, gid)) = owner.map(Owner::ids) {
            fs::fchown(&handle, Some(uid), Some(gid))?;
        }
        if !is_late {
            fs::fchmod(&handle, mode)?;
        }
        Ok(())
    }

    /// Last, because a file written into a folder changes its time and needs its write permission.
    pub(super) fn end_folders(&mut self) {
        for late in self.late.drain(..).rev() {
            // A folder that has been replaced meanwhile keeps its own mode and time.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            if let Ok(folder) = self.folder.open_beneath(&late.path, flags, Links::Refuse) {
                let _ = fs::futimens(&folder, &late.times);
                let _ = fs::fchmod(&folder, Mode::from_raw_mode(late.mode));
            }
        }
    }

    pub(super) fn put_symlink(
        &self,
        parent: &Folder,
        name: &[u8],
        entry: &Entry,
    ) -> io::Result<()> {
        let target = &entry.link;
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(io::Error::other("the target of the symlink is malformed"));
        }
        // Any target: it is the reader who must not follow.
        let temporary = temporary_name();
        fs::symlinkat(target.as_slice(), parent, temporary.as_slice())?;
        let written = self.finish_special(parent, &temporary, entry);
        parent.finish(written, &temporary, name)
    }

    pub(super) fn put_pipe(&self, parent: &Folder, name: &[u8], entry: &Entry) -> io::Result<()> {
        let temporary = temporary_name();
        fs::mknodat(parent, temporary.as_slice(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let written = self.finish_special(parent, &temporary, entry).and_then(|()| {
            // chmod(2) follows a symlink that took its place; the handle does not.
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let pipe = parent.open_beneath(&temporary, flags, Links::Refuse)?;
            Ok(fs::chmod(format!("/proc/self/fd/{}", pipe.as_raw_fd()), self.mode(entry))?)
        });
        parent.finish(written, &temporary, name)
    }

    /// Owner and times of what cannot be opened.
    fn finish_special(&self, parent: &Folder, name: &[u8], entry: &Entry) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(entry).map(Owner::ids) {
            fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(fs::utimensat(parent, name, &entry.times(), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// A further name for a file beneath the same folder; the target is resolved like every path.
pub(super) fn put_link(
    folder: &Folder,
    parent: &Folder,
    name: &[u8],
    entry: &Entry,
) -> io::Result<()> {
    let (target_parent, target_name) = split_last(&entry.link)
        .ok_or_else(|| io::Error::other("the target of the hard link is malformed"))?;
    let target_parent = folder.folder(target_parent, Links::Refuse)?;
    let temporary = temporary_name();
    fs::linkat(&target_parent, target_name, parent, temporary.as_slice(), AtFlags::empty())?;
    parent.finish(Ok(()), &temporary, name)?;
    // Renaming one name of a file over another of the same does nothing: the first one stays.
    match fs::unlinkat(parent, temporary.as_slice(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
