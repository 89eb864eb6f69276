//! A tree of files that is hard to copy, and what must be equal in its copy.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;

/// Names, types, modes, sizes, allocated blocks, links, times and content below a folder, sorted.
pub fn listing(top: &Path) -> Vec<(OsString, String)> {
    let mut all = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let link = std::fs::read_link(&path).unwrap_or_default();
            let mut text = format!("{:o} {}.{:09}", meta.mode(), meta.mtime(), meta.mtime_nsec());
            if meta.is_file() {
                let content = std::fs::read(&path).unwrap();
                let data = content.iter().filter(|byte| **byte != 0).collect::<Vec<_>>();
                let (size, blocks, links) = (meta.size(), meta.blocks(), meta.nlink());
                text.push_str(&format!(" {size} {blocks} {links} {data:?}"));
            }
            text.push_str(&format!(" {link:?}"));
            all.push((path.strip_prefix(top).unwrap().as_os_str().to_owned(), text));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    all.sort();
    all
}

/// Makes a tree with odd names, links, modes, times, a named pipe and a sparse file of 40 MiB.
pub fn make(at: &Path) {
    std::fs::create_dir_all(at.join("a/b")).unwrap();
    for name in [b"new\nline".as_slice(), b"\xff\xfe", b" -rf *", b"a:b", b"-", &[b'n'; 255]] {
        std::fs::write(at.join(OsStr::from_bytes(name)), name).unwrap();
    }
    std::fs::set_permissions(at.join("a:b"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("../nowhere\n", at.join("a/dangling")).unwrap();
    symlink("/etc/passwd", at.join("absolute")).unwrap();
    std::fs::hard_link(at.join(" -rf *"), at.join("a/second")).unwrap();
    let (file, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, at.join("pipe"), file, mode, 0).unwrap();
    let sparse = std::fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"data", 20 << 20).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    std::fs::File::open(at.join("a:b")).unwrap().set_modified(old).unwrap();
    std::fs::set_permissions(at.join("a/b"), PermissionsExt::from_mode(0o1750)).unwrap();
}
