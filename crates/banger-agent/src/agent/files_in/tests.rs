//! Valid and hostile archives, unpacked into a temporary folder.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use tar::Builder;

use super::*;

/// Builder of a tar archive, valid or not.
struct TestArchive(Builder<Vec<u8>>);

impl TestArchive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds an entry with this name and link target, without validation.
    fn add(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_000_000);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(EntryType::Regular, name, "", data.as_bytes())
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn unpack(self, into: &Path) -> Result<(), Refusal> {
        let folder = open(into.to_str().unwrap().as_bytes()).unwrap();
        unpack(&folder, self.bytes().as_slice())
    }
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn count(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn a_valid_archive_is_unpacked() {
    let dir = empty();
    TestArchive::new()
        .add(EntryType::Directory, "a/", "", b"")
        .file("a/file", "content")
        .file("new/deep/file", "")
        .add(EntryType::Symlink, "a/link", "../../etc/passwd", b"")
        .add(EntryType::Link, "again", "a/file", b"")
        .add(EntryType::Fifo, "pipe", "", b"")
        .unpack(dir.path())
        .unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(std::fs::read(at("a/file")).unwrap(), b"content");
    let meta = at("a/file").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.nlink()), (0o640, 1_000_000, 2));
    assert_eq!(at("a").metadata().unwrap().mtime(), 1_000_000);
    assert!(at("new/deep/file").exists());
    assert_eq!(std::fs::read_link(at("a/link")).unwrap(), Path::new("../../etc/passwd"));
    assert_eq!(count(dir.path()), 4);
}

#[test]
fn names_outside_the_folder_are_refused() {
    for name in ["../out", "a/../../out", "a/.."] {
        let dir = empty();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(
            TestArchive::new().file(name, "x").unpack(&inner).unwrap_err().status,
            400,
            "{name}"
        );
        assert_eq!((count(dir.path()), count(&inner)), (1, 0));
    }
    let dir = empty();
    TestArchive::new().file("/etc/shadow", "x").unpack(dir.path()).unwrap();
    assert!(dir.path().join("etc/shadow").exists(), "a leading slash means the folder");
}

#[test]
fn a_symlink_from_the_archive_is_not_followed() {
    let (dir, outside) = (empty(), empty());
    let target = outside.path().to_str().unwrap();
    let refusal = TestArchive::new()
        .add(EntryType::Symlink, "d", target, b"")
        .file("d/file", "x")
        .unpack(dir.path())
        .unwrap_err();
    assert_eq!(refusal.status, 409, "{refusal}");
    assert_eq!(count(outside.path()), 0);
}

#[test]
fn a_symlink_in_the_tree_is_replaced_not_followed() {
    let (dir, outside) = (empty(), empty());
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "old").unwrap();
    symlink(&victim, dir.path().join("file")).unwrap();
    TestArchive::new().file("file", "new").unpack(dir.path()).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"old");
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"new");
}

#[test]
fn hard_links_stay_beneath() {
    let (dir, outside) = (empty(), empty());
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    for target in ["d/secret", "../secret"] {
        let archive = TestArchive::new().add(EntryType::Link, "stolen", target, b"");
        assert!(archive.unpack(dir.path()).is_err(), "{target}");
    }
    assert_eq!(count(dir.path()), 1, "no temporary file is left");
    TestArchive::new()
        .file("a", "x")
        .add(EntryType::Link, "b", "a", b"")
        .add(EntryType::Link, "b", "a", b"")
        .unpack(dir.path())
        .unwrap();
    assert_eq!(count(dir.path()), 3, "linking twice leaves no temporary file");
}

#[test]
fn devices_and_collisions_are_refused() {
    let dir = empty();
    let device = TestArchive::new().add(EntryType::Char, "null", "", b"");
    assert_eq!(device.unpack(dir.path()).unwrap_err().status, 400);
    std::fs::create_dir(dir.path().join("d")).unwrap();
    assert_eq!(TestArchive::new().file("d", "x").unpack(dir.path()).unwrap_err().status, 409);
    std::fs::write(dir.path().join("f"), "").unwrap();
    let folder = TestArchive::new().add(EntryType::Directory, "f", "", b"");
    assert_eq!(folder.unpack(dir.path()).unwrap_err().status, 409);
    assert_eq!(count(dir.path()), 2);
}

#[test]
fn long_names_have_a_limit() {
    let dir = empty();
    let name = format!("{}/file", "n".repeat(200));
    TestArchive::new()
        .add(EntryType::GNULongName, "././@LongLink", "", name.as_bytes())
        .file("short", "x")
        .unpack(dir.path())
        .unwrap();
    assert!(dir.path().join(name).exists());
    let huge = vec![b'n'; MAX_EXTENSION as usize + 1];
    let archive = TestArchive::new().add(EntryType::GNULongName, "x", "", &huge).file("short", "x");
    assert_eq!(archive.unpack(dir.path()).unwrap_err().status, 400);
    let archive = TestArchive::new().add(EntryType::XHeader, "x", "", &huge).file("short", "x");
    assert_eq!(archive.unpack(dir.path()).unwrap_err().status, 400);
}

#[test]
fn pax_records_are_applied() {
    let dir = empty();
    TestArchive::new()
        .add(EntryType::XHeader, "x", "", b"14 path=named\n18 mtime=1234.567\n")
        .file("short", "x")
        .unpack(dir.path())
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(dir.path().join("named").metadata().unwrap().mtime(), 1234);
    let archive =
        TestArchive::new().add(EntryType::XHeader, "x", "", b"10 size=9\n").file("short", "x");
    assert_eq!(archive.unpack(dir.path()).unwrap_err().status, 400);
}

#[test]
fn a_truncated_archive_leaves_no_partial_file() {
    let dir = empty();
    let bytes = TestArchive::new().file("whole", "1").file("cut", &"x".repeat(5000)).bytes();
    let folder = open(dir.path().to_str().unwrap().as_bytes()).unwrap();
    assert!(unpack(&folder, &bytes[..512 + 512 + 512 + 1000]).is_err());
    assert!(dir.path().join("whole").exists());
    assert_eq!(count(dir.path()), 1);
}

#[test]
fn missing_folders_are_reported() {
    assert_eq!(open(b"/nowhere/at/all").err().unwrap().status, 404);
    assert_eq!(open(b"/etc/passwd").err().unwrap().status, 400);
}
