//! Kernels and initramfs archives for jails.
//!
//! Files in a jail must be readable for the VM's uid, and a user's files may not be. So each file
//! is copied once to a folder of root on the same file system, and hard-linked into jails from
//! there. The name of a copy contains every attribute that distinguishes versions of the source.
//! Each user has separate copies, so no user can plant a kernel for another.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Kind, RootError};
use crate::owner::make_folder;
use crate::places::Places;

/// Maximum size of a boot file in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Number of unused copies kept for each user.
const KEPT: usize = 16;

/// Hard-links the copy of a file to `target`; creates the copy if there is none.
///
/// # Errors
/// Not a regular file, too large, or an error of copying or linking.
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
            "a boot file must be a regular file of at most 1 GiB",
        ));
    }
    let folder = places.boot().join(owner.to_string());
    make_folder(&folder)?;
    // The lock makes one of several concurrent callers copy, and no caller prune a copy that
    // another is about to link.
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
    // A shorter copy was not completely on disk before a power loss.
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
        // The VM's uid reads it in its jail; the mode of the folder excludes other users.
        target.set_permissions(fs::Permissions::from_mode(0o444))?;
        // The name promises the content, also after a power loss.
        target.sync_all()?;
        fs::rename(&staged, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    });
    if copied.is_err() {
        // Report the first error, not that of the cleanup.
        let _ = fs::remove_file(&staged);
    }
    copied
}

/// Removes the oldest copies that no jail uses. Ignores errors; the next call retries.
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
    fn a_changed_file_is_copied_again() {
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
        // Truncated by a power loss.
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
    fn concurrent_links_get_the_right_copies() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { state: folder.path().join("s"), ..Places::default() };
        // More different files than copies are kept.
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
