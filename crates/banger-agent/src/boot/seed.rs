//! Filling a new folder once from what the image has in its place: a faithful copy of a tree,
//! made through folder handles, that a power failure in the middle does not leave half done.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::beneath::{Folder, Links, MAX_DEPTH};

/// Extended attribute of the target that says how far its filling has come. `trusted`, so that
/// only the guest's root sees it.
const MARK: &str = "trusted.banger.seed";
const BEGUN: &[u8] = b"begun";
const DONE: &[u8] = b"done";

/// Largest extended attribute, and list of their names (`XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 * 1024;

/// For [`once`]: the target gets the mode of what it was filled from.
pub const LIKE_THE_SOURCE: Option<Mode> = None;

/// Copies the first non-empty folder of `sources` into `target`, unless that has been done or the
/// target holds something already. The target gets `mode`, or the first source's.
///
/// # Errors
/// The first thing that could not be copied; the next boot tries again.
pub fn once(target: &Folder, sources: &[&Folder], mode: Option<Mode>) -> io::Result<()> {
    let handle = target.open_beneath(b".", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
    let mut mark = [0; 16];
    let state = match fs::fgetxattr(&handle, MARK, &mut mark) {
        Ok(length) => mark.get(..length).unwrap_or_default(),
        Err(Errno::NODATA) => b"",
        Err(errno) => return Err(errno.into()),
    };
    if state == DONE || (state != BEGUN && !is_new(target)?) {
        return Ok(());
    }
    fs::fsetxattr(&handle, MARK, BEGUN, XattrFlags::empty())?;
    let mut links = HashMap::new();
    for source in sources {
        if !is_new(source)? {
            copy_folder(source, target, &mut links, 0)?;
            break;
        }
    }
    if let Some(first) = sources.first() {
        let stat = fs::statat(first, "", AtFlags::EMPTY_PATH)?;
        fs::fchown(&handle, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        fs::fchmod(&handle, mode.unwrap_or(Mode::from_raw_mode(stat.st_mode & 0o7777)))?;
    }
    Ok(fs::fsetxattr(&handle, MARK, DONE, XattrFlags::empty())?)
}

/// The names in a folder, without `.` and `..`.
///
/// # Errors
/// As getdents(2).
pub fn names(folder: &Folder) -> io::Result<Vec<Vec<u8>>> {
    let handle = folder.open_beneath(b".", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
    let mut names = Vec::new();
    for entry in Dir::new(handle)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether there is nothing in it but what mke2fs makes.
fn is_new(folder: &Folder) -> io::Result<bool> {
    Ok(names(folder)?.iter().all(|name| name == b"lost+found"))
}

/// Most files with several names that are kept linked; each holds a descriptor while copying.
const LINKS_MAX: usize = 256;

/// Where the first copy of a file with several names went, by device and inode.
type LinkMap = HashMap<(u64, u64), (Folder, Vec<u8>)>;

fn copy_folder(
    source: &Folder,
    target: &Folder,
    links: &mut LinkMap,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("folders are nested too deep"));
    }
    for name in names(source)? {
        if depth == 0 && name == b"lost+found" {
            continue;
        }
        copy_entry(source, target, &name, links, depth)?;
    }
    Ok(())
}

fn copy_entry(
    source: &Folder,
    target: &Folder,
    name: &[u8],
    links: &mut LinkMap,
    depth: usize,
) -> io::Result<()> {
    let stat = fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    // What an interrupted copy left is made anew; folders are gone through again.
    if kind != FileType::Directory {
        match fs::unlinkat(target, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let id = (stat.st_dev, stat.st_ino);
        if let Some((folder, first)) = links.get(&id) {
            return Ok(fs::linkat(folder, first.as_slice(), target, name, AtFlags::empty())?);
        }
        if stat.st_nlink > 1 && links.len() < LINKS_MAX {
            links.insert(id, (target.folder(b".", Links::Refuse)?, name.to_vec()));
        }
    }
    match kind {
        FileType::Directory => {
            match fs::mkdirat(target, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let from = source.folder(name, Links::Refuse)?;
            let to = target.folder(name, Links::Refuse)?;
            copy_folder(&from, &to, links, depth + 1)?;
        }
        FileType::RegularFile => copy_content(source, target, name)?,
        FileType::Symlink => {
            let link = fs::readlinkat(source, name, Vec::new())?;
            fs::symlinkat(link, target, name)?;
        }
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
            fs::mknodat(target, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
        }
        // A socket without its server is worth nothing.
        _ => return Ok(()),
    }
    copy_metadata(source, target, name, &stat)
}

fn copy_content(source: &Folder, target: &Folder, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut from = std::fs::File::from(source.open_beneath(name, flags, Links::Refuse)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = std::fs::File::from(fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut to).map(drop)
}

/// Owner first: chown takes set-id bits and capabilities away. Times last.
fn copy_metadata(source: &Folder, target: &Folder, name: &[u8], stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        fs::chmodat(target, name, mode, AtFlags::empty())?;
    }
    if matches!(kind, FileType::RegularFile | FileType::Directory) {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let from = source.open_beneath(name, flags, Links::Refuse)?;
        let to = target.open_beneath(name, flags, Links::Refuse)?;
        copy_xattrs(&from, &to)?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(fs::utimensat(target, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut list = vec![0; XATTR_MAX];
    let length = match fs::flistxattr(&from, &mut list) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0; XATTR_MAX];
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(b"trusted.banger.") {
            continue;
        }
        let size = fs::fgetxattr(&from, name, &mut value)?;
        fs::fsetxattr(&to, name, value.get(..size).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Folder {
        Folder::open(path.to_str().unwrap()).unwrap()
    }

    fn copy(from: &Path, to: &Path) {
        copy_folder(&open(from), &open(to), &mut LinkMap::new(), 0).unwrap();
    }

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::create_dir(path.join("lost+found")).unwrap();
        std::fs::write(path.join("a/b/file"), "content").unwrap();
        std::fs::hard_link(path.join("a/b/file"), path.join("again")).unwrap();
        std::fs::set_permissions(path.join("a"), PermissionsExt::from_mode(0o750)).unwrap();
        symlink("/nowhere", path.join("link")).unwrap();
        dir
    }

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let (from, to) = (sample(), tempfile::tempdir().unwrap());
        copy(from.path(), to.path());
        let at = |name: &str| to.path().join(name);
        assert_eq!(std::fs::read(at("a/b/file")).unwrap(), b"content");
        assert_eq!(at("a").metadata().unwrap().mode() & 0o7777, 0o750);
        assert_eq!(at("again").metadata().unwrap().ino(), at("a/b/file").metadata().unwrap().ino());
        assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("/nowhere"));
        assert!(!at("lost+found").exists());
        let (old, new) = (from.path().join("a/b/file"), at("a/b/file"));
        assert_eq!(old.metadata().unwrap().mtime(), new.metadata().unwrap().mtime());
    }

    #[test]
    fn an_interrupted_copy_is_finished() {
        let (from, to) = (sample(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(to.path().join("a/b")).unwrap();
        std::fs::write(to.path().join("a/b/file"), "con").unwrap();
        symlink("/else", to.path().join("link")).unwrap();
        copy(from.path(), to.path());
        assert_eq!(std::fs::read(to.path().join("a/b/file")).unwrap(), b"content");
        assert_eq!(std::fs::read_link(to.path().join("link")).unwrap(), Path::new("/nowhere"));
    }

    #[test]
    fn only_lost_and_found_counts_as_new() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_new(&open(dir.path())).unwrap());
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        assert!(is_new(&open(dir.path())).unwrap());
        std::fs::write(dir.path().join(".profile"), "").unwrap();
        assert!(!is_new(&open(dir.path())).unwrap());
    }
}
