//! Archives, honest and hostile, unpacked for real.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::failure::Cause;

struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds an entry whose name and target are written as they are, checked by nobody.
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

    fn unpack(self, into: &Path) -> Result<Unpacked, Failure> {
        self.unpack_by(into, &RULES)
    }

    fn unpack_by(self, into: &Path, rules: &Rules<'_>) -> Result<Unpacked, Failure> {
        let mut done = Unpacked::default();
        unpack(&Folder::open(into).unwrap(), self.bytes().as_slice(), rules, &mut done)?;
        Ok(done)
    }
}

const RULES: Rules<'static> = Rules {
    owners: Owners::Keep,
    set_id: SetId::Keep,
    special: Special::Refuse,
    top: Top::AsIs,
    max_entries: 100,
    reserve_bytes: 0,
};

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn count(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn an_honest_archive() {
    let dir = empty();
    Archive::new()
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
fn names_that_leave_are_refused() {
    for name in ["../out", "a/../../out", "a/.."] {
        let dir = empty();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(
            Archive::new().file(name, "x").unpack(&inner).unwrap_err().cause,
            Cause::Archive,
            "{name}"
        );
        assert_eq!((count(dir.path()), count(&inner)), (1, 0));
    }
    let dir = empty();
    Archive::new().file("/etc/shadow", "x").unpack(dir.path()).unwrap();
    assert!(dir.path().join("etc/shadow").exists(), "a leading slash means the folder");
}

#[test]
fn a_symlink_from_the_archive_is_not_followed() {
    let (dir, outside) = (empty(), empty());
    let target = outside.path().to_str().unwrap();
    let refusal = Archive::new()
        .add(EntryType::Symlink, "d", target, b"")
        .file("d/file", "x")
        .unpack(dir.path())
        .unwrap_err();
    assert_eq!(refusal.cause, Cause::Conflict, "{refusal}");
    assert_eq!(count(outside.path()), 0);
}

#[test]
fn a_symlink_in_the_tree_is_replaced_not_followed() {
    let (dir, outside) = (empty(), empty());
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "old").unwrap();
    symlink(&victim, dir.path().join("file")).unwrap();
    Archive::new().file("file", "new").unpack(dir.path()).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"old");
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"new");
}

#[test]
fn hard_links_stay_beneath() {
    let (dir, outside) = (empty(), empty());
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    for target in ["d/secret", "../secret"] {
        let archive = Archive::new().add(EntryType::Link, "stolen", target, b"");
        assert!(archive.unpack(dir.path()).is_err(), "{target}");
    }
    assert_eq!(count(dir.path()), 1, "no temporary file is left");
    Archive::new()
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
    let device = Archive::new().add(EntryType::Char, "null", "", b"");
    assert_eq!(device.unpack(dir.path()).unwrap_err().cause, Cause::Archive);
    std::fs::create_dir(dir.path().join("d")).unwrap();
    assert_eq!(
        Archive::new().file("d", "x").unpack(dir.path()).unwrap_err().cause,
        Cause::Conflict
    );
    std::fs::write(dir.path().join("f"), "").unwrap();
    let folder = Archive::new().add(EntryType::Directory, "f", "", b"");
    assert_eq!(folder.unpack(dir.path()).unwrap_err().cause, Cause::Conflict);
    assert_eq!(count(dir.path()), 2);
}

#[test]
fn long_names_have_a_limit() {
    let dir = empty();
    let name = format!("{}/file", "n".repeat(200));
    Archive::new()
        .add(EntryType::GNULongName, "././@LongLink", "", name.as_bytes())
        .file("short", "x")
        .unpack(dir.path())
        .unwrap();
    assert!(dir.path().join(name).exists());
    let huge = vec![b'n'; 64 * 1024 + 1];
    let archive = Archive::new().add(EntryType::GNULongName, "x", "", &huge).file("short", "x");
    assert_eq!(archive.unpack(dir.path()).unwrap_err().cause, Cause::Archive);
    let archive = Archive::new().add(EntryType::XHeader, "x", "", &huge).file("short", "x");
    assert_eq!(archive.unpack(dir.path()).unwrap_err().cause, Cause::Archive);
}

#[test]
fn pax_records_count() {
    let dir = empty();
    Archive::new()
        .add(EntryType::XHeader, "x", "", b"14 path=named\n18 mtime=1234.567\n")
        .file("short", "x")
        .unpack(dir.path())
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(dir.path().join("named").metadata().unwrap().mtime(), 1234);
}

#[test]
fn a_cut_archive_leaves_no_half_file() {
    let dir = empty();
    let bytes = Archive::new().file("whole", "1").file("cut", &"x".repeat(5000)).bytes();
    let folder = Folder::open(dir.path()).unwrap();
    for length in [512 + 512 + 512 + 1000, 512 + 512] {
        let mut done = Unpacked::default();
        let failure = unpack(&folder, &bytes[..length], &RULES, &mut done).unwrap_err();
        assert_eq!((failure.cause, done.entries, done.bytes), (Cause::Stream, 1, 1));
    }
    assert!(dir.path().join("whole").exists());
    assert_eq!(count(dir.path()), 1);
}

#[test]
fn all_entries_stay_beneath_the_name_that_was_chosen() {
    let dir = empty();
    let rules = Rules { top: Top::Named(b"mine"), ..RULES };
    Archive::new()
        .add(EntryType::Directory, "theirs/", "", b"")
        .file("theirs/a", "x")
        .add(EntryType::Link, "theirs/b", "theirs/a", b"")
        .unpack_by(dir.path(), &rules)
        .unwrap();
    assert_eq!(dir.path().join("mine/b").metadata().unwrap().nlink(), 2);
    std::fs::write(dir.path().join("precious"), "old").unwrap();
    for hostile in [
        Archive::new().file("theirs", "x").file("precious", "new"),
        Archive::new().file("theirs/c", "x").file("precious", "new"),
        Archive::new().add(EntryType::Link, "theirs/c", "precious", b""),
        Archive::new().file("theirs/d", "x").file("./theirs/../precious", "new"),
        Archive::new().file(".", "x").file("precious", "new"),
    ] {
        hostile.unpack_by(dir.path(), &rules).ok();
    }
    assert_eq!(count(dir.path()), 2);
    let precious = dir.path().join("precious");
    assert_eq!(precious.metadata().unwrap().nlink(), 1);
    assert_eq!(std::fs::read(precious).unwrap(), b"old");
}

#[test]
fn a_symlink_that_was_sent_before_is_no_way_out() {
    let (dir, outside) = (empty(), empty());
    let target = outside.path().to_str().unwrap();
    let rules = Rules { top: Top::Named(b"mine"), ..RULES };
    let link = Archive::new().add(EntryType::Symlink, "x", target, b"");
    link.unpack_by(dir.path(), &rules).unwrap();
    let second = Archive::new().file("x/file", "y");
    assert_eq!(second.unpack_by(dir.path(), &rules).unwrap_err().cause, Cause::Conflict);
    let third = Archive::new().file("x", "y").add(EntryType::Link, "x/l", "x/f", b"");
    assert!(third.unpack_by(dir.path(), &rules).is_err());
    assert_eq!(count(outside.path()), 0);
}

#[test]
fn entries_have_a_limit() {
    let dir = empty();
    let rules = Rules { max_entries: 3, ..RULES };
    let many = |n: usize| (0..n).fold(Archive::new(), |a, n| a.file(&format!("f{n}"), "x"));
    assert_eq!(many(3).unpack_by(dir.path(), &rules).unwrap().entries, 3);
    let failure = many(4).unpack_by(dir.path(), &rules).unwrap_err();
    assert_eq!(failure.to_string(), "the archive has over 3 entries");
}

#[test]
fn an_archive_without_end_stops_before_the_disk_is_full() {
    let dir = empty();
    let rules = Rules { reserve_bytes: u64::MAX, ..RULES };
    let failure = Archive::new().file("f", "x").unpack_by(dir.path(), &rules).unwrap_err();
    assert_eq!((failure.cause, count(dir.path())), (Cause::NoSpace, 0));
}

#[test]
fn devices_can_be_left_out_and_set_id_bits_dropped() {
    let dir = empty();
    let rules = Rules { special: Special::LeaveOut, set_id: SetId::Drop, ..RULES };
    let mut archive = Archive::new().add(EntryType::Block, "sda", "", b"");
    let mut header = Header::new_ustar();
    header.set_path("su").unwrap();
    header.set_mode(0o6755);
    header.set_size(0);
    header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
    header.set_gid(u64::from(rustix::process::getegid().as_raw()));
    header.set_mtime(1);
    header.set_cksum();
    archive.0.append(&header, io::empty()).unwrap();
    let done = archive.unpack_by(dir.path(), &rules).unwrap();
    assert_eq!((done.entries, done.left_out, done.left_out_names), (1, 1, vec!["sda".to_owned()]));
    assert_eq!(dir.path().join("su").metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_folder_that_may_not_be_written_to_is_filled_first() {
    let dir = empty();
    let mut archive = Archive::new();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Directory);
    header.set_path("closed/").unwrap();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o500);
    header.set_size(0);
    header.set_mtime(1234);
    header.set_cksum();
    archive.0.append(&header, io::empty()).unwrap();
    let rules = Rules { owners: Owners::Caller, ..RULES };
    archive.file("closed/file", "x").unpack_by(dir.path(), &rules).unwrap();
    let meta = dir.path().join("closed").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o500, 1234));
    assert_eq!(std::fs::read(dir.path().join("closed/file")).unwrap(), b"x");
}

#[test]
fn a_folder_that_exists_keeps_its_mode_and_time() {
    let dir = empty();
    let kept = dir.path().join("d");
    std::fs::create_dir(&kept).unwrap();
    std::fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let before = kept.metadata().unwrap().mode();
    Archive::new().add(EntryType::Directory, "d/", "", b"").unpack(dir.path()).unwrap();
    let meta = kept.metadata().unwrap();
    assert_eq!(meta.mode(), before);
    assert_ne!(meta.mtime(), 1_000_000);
}

/// Entries of a hostile sender: names and targets that lead out, links, and what they may hide.
fn hostile() -> impl Strategy<Value = Vec<(u8, String, String)>> {
    let name = prop_oneof![
        "(a|b|c|\\.|\\.\\.|out)(/(a|b|c|\\.|\\.\\.|victim)){0,3}/?",
        Just("/".to_owned()),
        Just("/etc/victim".to_owned()),
        Just("../out/victim".to_owned()),
    ];
    let link = prop_oneof![
        name.clone(),
        Just("..".to_owned()),
        Just("../out".to_owned()),
        Just("OUT".to_owned()),
        Just("OUT/victim".to_owned()),
    ];
    proptest::collection::vec((0_u8..7, name, link), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_of_entries_leaves_the_folder(entries in hostile(), named: bool) {
        let dir = empty();
        let (inner, out) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("victim"), "old").unwrap();
        let before = out.join("victim").metadata().unwrap().mode();
        std::fs::write(inner.join("beside"), "old").unwrap();
        let top = if named { Top::Named(b"mine") } else { Top::AsIs };
        let rules = Rules { special: Special::LeaveOut, top, ..RULES };
        // Each entry alone as well, since an error ends an archive.
        for cut in 0..entries.len() {
            let mut archive = Archive::new();
            for (kind, name, link) in &entries[cut..] {
                let link = link.replace("OUT", out.to_str().unwrap());
                let link = link.get(..100).unwrap_or(&link);
                archive = match kind {
                    0 => archive.add(EntryType::Directory, name, "", b""),
                    1 => archive.add(EntryType::Symlink, name, link, b""),
                    2 => archive.add(EntryType::Link, name, link, b""),
                    3 => archive.add(EntryType::Fifo, name, "", b""),
                    4 => archive.add(EntryType::Char, name, "", b""),
                    _ => archive.file(name, "new"),
                };
            }
            archive.unpack_by(&inner, &rules).ok();
        }
        let victim = out.join("victim").symlink_metadata().unwrap();
        prop_assert_eq!((victim.nlink(), victim.mode()), (1, before));
        prop_assert_eq!(std::fs::read(out.join("victim")).unwrap(), b"old");
        prop_assert_eq!((count(&out), count(dir.path())), (1, 2));
        if named {
            prop_assert_eq!(std::fs::read(inner.join("beside")).unwrap(), b"old");
            prop_assert!(count(&inner) <= 2);
        }
    }
}
