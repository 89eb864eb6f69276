//! Paths of an image, followed as its own system would follow them: symlinks absolute and relative,
//! with the image's root as `/`, and never out of it. What a dangling link names is made.
//!
//! Only links that the image or its superuser made are followed: a file of the superuser's must not
//! land where a link in a home folder of an ordinary user leads.

use std::io;

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use crate::beneath::{Folder, Links, MAX_DEPTH, Owner, components, split_last};
use crate::fault::{Context, Fault};

/// Most symlinks followed in one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Resolution inside a folder.
pub trait Inside: Sized {
    /// Opens the folder at `path`, following symlinks inside this folder and making what is
    /// missing, the target of a dangling link included.
    ///
    /// # Errors
    /// A loop of links, a part that is not a folder, an untrusted link, a full or read-only disk.
    fn make_inside(&self, path: &[u8], owner: Owner, mode: u32) -> Result<Self, Fault>;

    /// The folder in which the file `path` really is, or would be made, and its name there: a
    /// symlink at the end is followed as well. Folders on the way are made.
    ///
    /// # Errors
    /// As [`Inside::make_inside`]; `path` names no file.
    fn real_place(&self, path: &[u8]) -> Result<(Self, Vec<u8>), Fault>;
}

impl Inside for Folder {
    fn make_inside(&self, path: &[u8], owner: Owner, mode: u32) -> Result<Self, Fault> {
        let what = || format!("cannot make folder `/{}`", shown(path));
        let reached =
            components(path).and_then(|parts| Walk::new(self)?.reach_folder(&parts, owner, mode));
        reached.context(what)
    }

    fn real_place(&self, path: &[u8]) -> Result<(Self, Vec<u8>), Fault> {
        let what = || format!("cannot find the place of `/{}`", shown(path));
        let (parent, name) =
            split_last(path).ok_or_else(|| Fault::new("the root folder is not a file"))?;
        let reached = components(path).and_then(|_| components(parent)).and_then(|mut parts| {
            parts.push(name);
            Walk::new(self)?.reach_file(&parts)
        });
        reached.context(what)
    }
}

fn shown(path: &[u8]) -> String {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    String::from_utf8_lossy(path.get(start..).unwrap_or_default()).into_owned()
}

/// One resolution of a path.
struct Walk {
    /// Open folders from the root to where the walk is, without links.
    trail: Vec<Folder>,
    /// Owner of the root folder.
    image_owner: u32,
    links_left: u32,
}

impl Walk {
    fn new(root: &Folder) -> io::Result<Self> {
        let image_owner = fs::statat(root, "", AtFlags::EMPTY_PATH)?.st_uid;
        let trail = vec![root.folder(b".", Links::Refuse)?];
        Ok(Self { trail, image_owner, links_left: MAX_LINKS })
    }

    fn reach_folder(mut self, parts: &[&[u8]], owner: Owner, mode: u32) -> io::Result<Folder> {
        let mut todo = reversed(parts.iter().copied());
        while let Some(part) = todo.pop() {
            if !self.follow(&part, &mut todo)? {
                self.enter(&part, owner, mode)?;
            }
        }
        self.here()?.folder(b".", Links::Refuse)
    }

    fn reach_file(mut self, parts: &[&[u8]]) -> io::Result<(Folder, Vec<u8>)> {
        let mut todo = reversed(parts.iter().copied());
        while let Some(part) = todo.pop() {
            if self.follow(&part, &mut todo)? {
                continue;
            }
            if todo.is_empty() && part != b".." {
                return Ok((self.here()?.folder(b".", Links::Refuse)?, part));
            }
            self.enter(&part, Owner::ROOT, 0o755)?;
        }
        // A link to `/` or `..`: a folder, not a file.
        Err(Errno::ISDIR.into())
    }

    fn here(&self) -> io::Result<&Folder> {
        self.trail.last().ok_or_else(|| Errno::NOENT.into())
    }

    fn enter(&mut self, part: &[u8], owner: Owner, mode: u32) -> io::Result<()> {
        if part == b".." {
            // The root is its own parent.
            if self.trail.len() > 1 {
                self.trail.pop();
            }
            return Ok(());
        }
        if self.trail.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let next = self.here()?.step_into(part, owner, mode)?;
        self.trail.push(next);
        Ok(())
    }

    /// Puts the parts of the link `part` before the rest of the path; false if it is no link.
    fn follow(&mut self, part: &[u8], todo: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        let here = self.here()?;
        if part == b".." || here.kind_of(part) != Some(FileType::Symlink) {
            return Ok(false);
        }
        let owner = fs::statat(here, part, AtFlags::SYMLINK_NOFOLLOW)?.st_uid;
        let trusted = [0, self.image_owner, rustix::process::geteuid().as_raw()];
        if self.trail.len() > 1 && !trusted.contains(&owner) {
            let text = format!("`{}` is a link of user {owner}, not followed", shown(part));
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let target = fs::readlinkat(here, part, Vec::new())?.into_bytes();
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::LOOP)?;
        if target.starts_with(b"/") {
            self.trail.truncate(1);
        }
        let parts = target.split(|byte| *byte == b'/');
        todo.extend(reversed(parts.filter(|part| !part.is_empty() && *part != b".")));
        Ok(true)
    }
}

fn reversed<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn image() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_str().unwrap()).unwrap();
        (dir, folder)
    }

    fn me() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    fn same(folder: &Folder, path: &Path) -> bool {
        let stat = fs::statat(folder, "", AtFlags::EMPTY_PATH).unwrap();
        let other = fs::stat(path).unwrap();
        (stat.st_dev, stat.st_ino) == (other.st_dev, other.st_ino)
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let (dir, root) = image();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("private/etc")).unwrap();
        std::fs::create_dir_all(at("var")).unwrap();
        symlink("private/etc", at("etc")).unwrap();
        symlink("/private", at("var/lib")).unwrap();
        symlink("../../../../../private/etc", at("var/up")).unwrap();
        for (path, real) in [
            ("etc", "private/etc"),
            ("/etc/ssh", "private/etc/ssh"),
            ("var/lib/docker", "private/docker"),
            ("var/up/x", "private/etc/x"),
        ] {
            let made = root.make_inside(path.as_bytes(), me(), 0o755).unwrap();
            assert!(same(&made, &at(real)), "{path}");
        }
    }

    #[test]
    fn the_target_of_a_dangling_link_is_created() {
        let (dir, root) = image();
        let at = |path: &str| dir.path().join(path);
        symlink("var/roothome", at("root")).unwrap();
        symlink("/a/./b//c", at("home")).unwrap();
        root.make_inside(b"root", me(), 0o700).unwrap();
        root.make_inside(b"home/dev", me(), 0o755).unwrap();
        assert!(at("var/roothome").is_dir() && at("a/b/c/dev").is_dir());
        assert_eq!(std::fs::read_link(at("root")).unwrap().to_str(), Some("var/roothome"));
    }

    #[test]
    fn files_are_found_through_links_at_the_end() {
        let (dir, root) = image();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("etc")).unwrap();
        symlink("../private/hosts", at("etc/hosts")).unwrap();
        symlink("/private/hostname", at("etc/hostname")).unwrap();
        symlink("/", at("etc/slash")).unwrap();
        let (folder, name) = root.real_place(b"/etc/hosts").unwrap();
        assert!(same(&folder, &at("private")) && name == b"hosts");
        let (folder, name) = root.real_place(b"etc/hostname").unwrap();
        assert!(same(&folder, &at("private")) && name == b"hostname");
        assert!(root.real_place(b"etc/slash").is_err());
        assert!(root.real_place(b"/").is_err());
    }

    #[test]
    fn loops_and_escapes_end() {
        let (dir, root) = image();
        let outside = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        symlink("b", at("a")).unwrap();
        symlink("/a", at("b")).unwrap();
        symlink("self/x", at("self")).unwrap();
        for path in ["a", "b/c", "self"] {
            let fault = root.make_inside(path.as_bytes(), me(), 0o755).err().unwrap();
            assert_eq!(fault.io().unwrap().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        }
        let leaving = format!("../../../../../../..{}", outside.path().display());
        symlink(&leaving, at("out")).unwrap();
        root.make_inside(b"out/x", me(), 0o755).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        std::fs::write(at("file"), "").unwrap();
        assert!(root.make_inside(b"file/x", me(), 0o755).is_err());
    }

    #[test]
    fn a_link_of_an_ordinary_user_is_followed_only_at_the_top() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root may give files to another user");
            return;
        }
        let (dir, root) = image();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("home/dev")).unwrap();
        for link in ["home/dev/.ssh", "top"] {
            symlink("/etc/cron.d", at(link)).unwrap();
            std::os::unix::fs::lchown(at(link), Some(1000), Some(1000)).unwrap();
        }
        let fault = root.make_inside(b"home/dev/.ssh", me(), 0o700).err().unwrap();
        assert!(fault.chain().contains("a link of user 1000"), "{}", fault.chain());
        assert!(!at("etc").exists());
        root.make_inside(b"top", me(), 0o700).unwrap();
    }
}
