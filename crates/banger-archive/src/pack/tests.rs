//! Trees packed and unpacked again, compared with the originals.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use crate::unpack::{MAX_ENTRIES, Owners, Rules, SetId, Special, Top, Unpacked, unpack};

fn packed(path: &Path, name: &str) -> Result<(Vec<u8>, Packed), Failure> {
    let source = fs::open(path, OFlags::PATH | OFlags::CLOEXEC, fs::Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    let packed = pack(
        &source,
        super::Top { name: name.as_bytes(), path: name.as_bytes() },
        Devices::LeaveOut,
        &mut bytes,
    )?;
    Ok((bytes, packed))
}

fn names(bytes: &[u8]) -> BTreeMap<String, Kind> {
    let mut reader = crate::Reader::new(bytes);
    let mut names = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.insert(String::from_utf8_lossy(&entry.path).into_owned(), entry.kind);
    }
    names
}

/// Path, type and mode, size, time, link count, allocated bytes, link target, content.
type Listing = BTreeMap<Vec<u8>, (u32, u64, (i64, i64), u64, u64, Vec<u8>, Vec<u8>)>;

fn list(top: &Path, at: &Path, listing: &mut Listing) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let target = std::fs::read_link(&path).unwrap_or_default();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let (size, blocks, links) = match meta.is_file() {
            true => (meta.size(), meta.blocks(), meta.nlink()),
            false => (0, 0, 0),
        };
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        let time = (meta.mtime(), meta.mtime_nsec());
        let target = target.as_os_str().as_bytes().to_vec();
        listing.insert(name, (meta.mode(), size, time, links, blocks, target, content));
        if meta.is_dir() {
            list(top, &path, listing);
        }
    }
}

#[test]
fn a_tree_arrives_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir_all(from.join("a/b/empty")).unwrap();
    let odd = [b"new\nline".as_slice(), b"\xff\xfe", b" -rf *", b"caf\xc3\xa9", &[b'n'; 255]];
    for name in odd {
        std::fs::write(from.join(OsStr::from_bytes(name)), name).unwrap();
    }
    std::fs::hard_link(from.join(" -rf *"), from.join("a/second")).unwrap();
    symlink("../nowhere\n", from.join("a/dangling")).unwrap();
    symlink("/etc/passwd", from.join("absolute")).unwrap();
    fs::mknodat(fs::CWD, from.join("pipe"), FileType::Fifo, fs::Mode::RUSR | fs::Mode::WGRP, 0)
        .unwrap();
    for (name, mode) in [("a/b", 0o1750), ("a/b/empty", 0o500), ("caf\u{e9}", 0o4751)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(from.join(name), permissions).unwrap();
    }
    let sparse = std::fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(100 << 20).unwrap();
    sparse.write_all_at(&[b'd'; 70_000], 10 << 20).unwrap();
    sparse.write_all_at(b"end", (90 << 20) + 5).unwrap();
    let hole = std::fs::File::create(from.join("hole")).unwrap();
    hole.set_len(5 << 20).unwrap();
    let (bytes, packed) = packed(&from, "to").unwrap();
    assert!(bytes.len() < 1 << 20, "holes are not sent: {} bytes", bytes.len());
    let rules = Rules {
        owners: Owners::Caller,
        set_id: SetId::Keep,
        special: Special::Refuse,
        top: Top::AsIs,
        max_entries: MAX_ENTRIES,
        reserve_bytes: 0,
    };
    let mut done = Unpacked::default();
    let folder = Folder::open(dir.path()).unwrap();
    unpack(&folder, bytes.as_slice(), &rules, &mut done).unwrap();
    assert_eq!((done.entries, done.bytes), (packed.entries, packed.bytes));
    let (mut before, mut after) = (Listing::new(), Listing::new());
    list(&from, &from, &mut before);
    list(&to, &to, &mut after);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, original) in &before {
        assert!(original == &after[name], "{}", String::from_utf8_lossy(name));
    }
    let of = |path: &Path| path.metadata().map(|meta| (meta.mode(), meta.mtime_nsec())).unwrap();
    assert_eq!(of(&from), of(&to));
}

#[test]
fn a_folder_comes_under_the_given_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    symlink("/etc/passwd", dir.path().join("link")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let (bytes, counted) = packed(dir.path(), "top").unwrap();
    drop(socket);
    assert_eq!((counted.entries, counted.bytes, counted.left_out), (3, 7, 1));
    let names = names(&bytes);
    assert_eq!(names.keys().collect::<Vec<_>>(), ["top/", "top/file", "top/link"]);
    assert_eq!(names["top/link"], Kind::Symlink);
    let (bytes, _) = packed(&dir.path().join("link"), "passwd").unwrap();
    assert_eq!(self::names(&bytes)["passwd"], Kind::File, "the handle is of the target");
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let link = fs::open(dir.path().join("link"), flags, fs::Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    pack(&link, super::Top { name: b"link", path: b"link" }, Devices::LeaveOut, &mut bytes)
        .unwrap();
    let entry = crate::Reader::new(bytes.as_slice()).next_entry().unwrap().unwrap();
    assert_eq!((entry.kind, entry.link.as_slice()), (Kind::Symlink, b"/etc/passwd".as_slice()));
}

#[test]
fn proc_is_only_a_folder() {
    let (bytes, _) = packed(Path::new("/proc"), "proc").unwrap();
    assert_eq!(names(&bytes).keys().collect::<Vec<_>>(), ["proc/"]);
}

#[test]
fn other_programs_read_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    std::fs::create_dir(&from).unwrap();
    let name = OsStr::from_bytes(b"\xff\n");
    let sparse = std::fs::File::create(from.join(name)).unwrap();
    sparse.set_len(3 << 20).unwrap();
    sparse.write_all_at(b"data", 2 << 20).unwrap();
    std::fs::write(from.join("n".repeat(200)), "x").unwrap();
    let (bytes, _) = packed(&from, "top").unwrap();
    std::fs::write(dir.path().join("ours.tar"), bytes).unwrap();
    let tar = |args: &[&str]| {
        let run = std::process::Command::new("tar").current_dir(dir.path()).args(args).output();
        let run = run.unwrap();
        assert!(run.status.success() && run.stderr.is_empty(), "{run:?}");
    };
    tar(&["xf", "ours.tar"]);
    let (mut before, mut after) = (Listing::new(), Listing::new());
    list(&from, &from, &mut before);
    list(&dir.path().join("top"), &dir.path().join("top"), &mut after);
    assert!(before == after);
    // And the other way, in both formats of sparse files.
    for format in ["gnu", "posix"] {
        tar(&["cSf", "theirs.tar", &format!("--format={format}"), "-C", "from", "."]);
        let to = dir.path().join(format);
        std::fs::create_dir(&to).unwrap();
        let theirs = std::fs::read(dir.path().join("theirs.tar")).unwrap();
        let rules = Rules {
            owners: Owners::Caller,
            set_id: SetId::Keep,
            special: Special::Refuse,
            top: Top::AsIs,
            max_entries: MAX_ENTRIES,
            reserve_bytes: 0,
        };
        let done = &mut Unpacked::default();
        unpack(&Folder::open(&to).unwrap(), theirs.as_slice(), &rules, done).unwrap();
        let unpacked = to.join(name);
        assert_eq!(std::fs::read(&unpacked).unwrap(), std::fs::read(from.join(name)).unwrap());
        assert!(unpacked.metadata().unwrap().blocks() < 1000, "{format}");
    }
}
