//! Repairs a work disk whose files are one folder too deep.
//!
//! Tools that copied a folder `/root` into a work disk, instead of its content, made `/root/root`.
//! The guest's root then has no `.bashrc`, no keys and none of its files.

use std::io;

use rustix::fs::{self, AtFlags, RenameFlags};
use rustix::io::Errno;

use super::seed;
use crate::beneath::{Folder, Links};

/// Files that a home has, and a folder that only happens to be named `root` in one has not.
const OF_A_HOME: [&[u8]; 3] = [b".bashrc", b".profile", b".bash_profile"];

/// Moves the files of `root/` in a work disk up to where they belong; returns how many. Nothing
/// that is there is replaced: such a file stays in `root/`.
///
/// It is a nested home only if it has the files of one, and the work disk has none of them. Each
/// move is one rename, so that a power failure leaves no file in two places or in none, and the
/// next boot goes on: `root/` counts as nested as long as one of those files is in it, which are
/// moved last.
///
/// # Errors
/// A file that cannot be moved.
pub fn lift(work: &Folder) -> io::Result<usize> {
    let Ok(nested) = work.folder(b"root", Links::Refuse) else { return Ok(0) };
    let (above, mut below) = (seed::names(work)?, seed::names(&nested)?);
    let is_home = |names: &[Vec<u8>]| names.iter().any(|name| marks_home(name));
    if is_home(&above) || !is_home(&below) {
        return Ok(0);
    }
    below.sort_by_key(|name| marks_home(name));
    let mut moved = 0;
    for name in &below {
        match fs::renameat_with(
            &nested,
            name.as_slice(),
            work,
            name.as_slice(),
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => moved += 1,
            // What the agent or the user has made there since.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match fs::unlinkat(work, "root", AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOTEMPTY) => Ok(moved),
        Err(errno) => Err(errno.into()),
    }
}

fn marks_home(name: &[u8]) -> bool {
    OF_A_HOME.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Folder {
        Folder::open(path.to_str().unwrap()).unwrap()
    }

    fn disk(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, *file).unwrap();
        }
        dir
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_nested_home_moves_up_whatever_its_mode() {
        for mode in [0o755, 0o700] {
            let disk =
                disk(&[".ssh/authorized_keys", "root/.bashrc", "root/work/x", "root/.ssh/id"]);
            let nested = disk.path().join("root");
            std::fs::set_permissions(&nested, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(lift(&open(disk.path())).unwrap(), 2);
            assert_eq!(names(disk.path()), [".bashrc", ".ssh", "root", "work"]);
            // The keys of both stay.
            assert_eq!(names(&nested), [".ssh"]);
            assert_eq!(std::fs::read_to_string(disk.path().join("work/x")).unwrap(), "root/work/x");
            assert_eq!(lift(&open(disk.path())).unwrap(), 0, "a second boot changes nothing");
        }
        let whole = disk(&["root/.profile", "root/a"]);
        assert_eq!(lift(&open(whole.path())).unwrap(), 2);
        assert_eq!(names(whole.path()), [".profile", "a"]);
    }

    #[test]
    fn an_interrupted_repair_goes_on() {
        // `a` was moved before the power failed.
        let disk = disk(&["a", "root/.bashrc", "root/b"]);
        assert_eq!(lift(&open(disk.path())).unwrap(), 2);
        assert_eq!(names(disk.path()), [".bashrc", "a", "b"]);
    }

    #[test]
    fn a_folder_of_the_user_stays() {
        for files in [&[".bashrc", "root/.bashrc"][..], &["root/data"], &["root"], &["x"]] {
            let disk = disk(files);
            let before = names(disk.path());
            assert_eq!(lift(&open(disk.path())).unwrap(), 0, "{files:?}");
            assert_eq!(names(disk.path()), before);
        }
        let disk = disk(&["elsewhere/.bashrc"]);
        std::os::unix::fs::symlink("elsewhere", disk.path().join("root")).unwrap();
        assert_eq!(lift(&open(disk.path())).unwrap(), 0, "a link is no nested home");
    }
}
