//! Kernels and initramfs archives for jails.
//!
//! A jail's files must be readable for the VM's uid, and a user's are not. So each is copied once
//! to a folder of root's on the same file system and linked into jails from there. A copy is known
//! by everything that tells one version of the user's file from another, and each user has copies
//! of its own, so that nobody can lay down a kernel for somebody else.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Kind, RootError};
use crate::owner::make_folder;
use crate::places::Places;

/// Largest file that is kept.
const MAX_BYTES: u64 = 1 << 30;
/// Files kept for each user beside those that jails use.
const KEPT: usize = 16;

/// Links the copy of a file to where a jail has it; the copy is made if there is none.
///
/// # Errors
/// It is no ordinary file, too large, or cannot be copied or linked.
pub fn link(
    places: &Places,
    owner: u32,
    file: &OwnedFd,
    target: &Path,
) -> Result<PathBuf, RootError> {
    let source = file.as_fd().try_clone_to_owned().map(File::from);
    let looked = source.and_then(|file| Ok((file.metadata()?, file)));
    let (meta, source) = looked.map_err(|error| RootError::system("read a boot file", &error))?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(RootError::new(
            Kind::BadRequest,
            "a boot file must be a file of at most 1 GiB",
        ));
    }
    let folder = places.boot().join(owner.to_string());
    make_folder(&folder)?;
    // Of those who want the same at once one copies; and none forgets what another is to link.
    let locked = File::open(&folder).and_then(|folder| {
        flock(&folder, FlockOperation::LockExclusive)?;
        Ok(folder)
    });
    let _lock = locked.map_err(|error| RootError::on_path("lock", &folder, &error))?;
    let name = format!(
        "{:x}-{:x}-{:x}-{:x}.{:09}-{:x}.{:09}",
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    let path = folder.join(name);
    // A shorter one was not wholly on the disk when the power went.
    if fs::metadata(&path).map(|kept| kept.len()).ok() != Some(meta.len()) {
        copy(&source, &path).map_err(|error| RootError::on_path("write", &path, &error))?;
        prune(&folder, &path);
    }
    fs::hard_link(&path, target).map_err(|error| RootError::on_path("link", target, &error))?;
    Ok(path)
}

fn copy(source: &File, path: &Path) -> io::Result<()> {
    let staged = path.with_extension("new");
    let copied = File::create(&staged).and_then(|target| {
        banger_sys::sparse::copy(source, &target)?;
        // For the VM's uid to read in its jail; the folder lets nobody else come here.
        target.set_permissions(fs::Permissions::from_mode(0o444))?;
        // The name says what is in it, also after the power went.
        target.sync_all()?;
        fs::rename(&staged, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    });
    if copied.is_err() {
        // The first error is the one that tells.
        let _ = fs::remove_file(&staged);
    }
    copied
}

/// Forgets the oldest copies that no jail uses. What cannot be removed now is another time.
fn prune(folder: &Path, newest: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut idle: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
        .filter(|(meta, path)| meta.nlink() == 1 && path != newest)
        .collect();
    idle.sort_by_key(|(meta, _)| (meta.ctime(), meta.ctime_nsec()));
    let surplus = idle.len().saturating_sub(KEPT);
    for (_, path) in idle.iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_copied_once_and_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { state: folder.path().join("s"), ..Places::default() };
        let source = folder.path().join("vmlinux");
        fs::write(&source, "one").unwrap();
        let open = || OwnedFd::from(File::open(&source).unwrap());
        let target = folder.path().join("jail");
        let keep = |places: &Places, owner, file: &OwnedFd| {
            let _ = fs::remove_file(&target);
            link(places, owner, file, &target)
        };
        let first = keep(&places, 1000, &open()).unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "one");
        assert_eq!(keep(&places, 1000, &open()).unwrap(), first);
        assert_ne!(keep(&places, 1001, &open()).unwrap(), first);
        // Cut short by a power cut.
        fs::remove_file(&first).unwrap();
        fs::write(&first, "o").unwrap();
        assert_eq!(fs::read_to_string(keep(&places, 1000, &open()).unwrap()).unwrap(), "one");
        fs::write(&source, "two!").unwrap();
        let second = keep(&places, 1000, &open()).unwrap();
        assert_eq!(fs::read_to_string(second).unwrap(), "two!");
        for n in 0..40 {
            fs::write(&source, "x".repeat(n)).unwrap();
            keep(&places, 1000, &open()).unwrap();
        }
        assert!(fs::read_dir(first.parent().unwrap()).unwrap().count() <= KEPT + 1);
        let pipe = rustix::pipe::pipe().unwrap().0;
        assert_eq!(keep(&places, 1000, &pipe).unwrap_err().kind, Kind::BadRequest);
    }

    #[test]
    fn many_at_once_each_have_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { state: folder.path().join("s"), ..Places::default() };
        // More different ones than are kept.
        let source = |n: usize| folder.path().join(format!("vmlinux{}", n % (KEPT + 8)));
        for n in 0..KEPT + 8 {
            fs::write(source(n), vec![7; 1 << 20]).unwrap();
        }
        std::thread::scope(|scope| {
            for n in 0..3 * KEPT {
                let (places, source) = (&places, source(n));
                let target = folder.path().join(format!("jail{n}"));
                scope.spawn(move || {
                    let file = OwnedFd::from(File::open(source).unwrap());
                    link(places, 1000, &file, &target).unwrap();
                    assert_eq!(fs::metadata(&target).unwrap().len(), 1 << 20);
                });
            }
        });
    }
}
