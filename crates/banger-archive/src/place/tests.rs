//! Every pair of source and target, as in the table of docs/cp.md.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// A folder with `dir/`, `dir/sub/`, `file`, `to-dir`, `to-file`, `dangling` and `null`.
fn tree() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    std::fs::create_dir_all(at("dir/sub")).unwrap();
    std::fs::write(at("file"), "old").unwrap();
    std::fs::write(at("dir/file"), "old").unwrap();
    symlink("dir", at("to-dir")).unwrap();
    symlink("file", at("to-file")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("/dev/null", at("null")).unwrap();
    top
}

/// `FOLDER NAME` of the place, or the error.
fn place(top: &Path, path: &str, from: Source, called: &str) -> String {
    let path = format!("{}/{path}", top.display());
    match target(None, path.as_bytes(), from, called.as_bytes()) {
        Ok(place) => {
            use std::os::fd::{AsFd as _, AsRawFd as _};
            let fd = place.folder.as_fd().as_raw_fd();
            let folder = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            let folder = folder.strip_prefix(top.canonicalize().unwrap()).unwrap();
            let name = place.name.map(|name| String::from_utf8(name).unwrap());
            format!("{} {}", folder.display(), name.unwrap_or_else(|| "-".into()))
        }
        Err(failure) => failure.chain().replace(&format!("{}/", top.display()), ""),
    }
}

#[test]
fn files() {
    let top = tree();
    for (path, expected) in [
        ("dir", "dir new"),
        ("dir/", "dir new"),
        ("dir/.", "dir new"),
        ("to-dir", "dir new"),
        ("file", " file"),
        ("to-file", " to-file"),
        ("dangling", " dangling"),
        ("missing", " missing"),
        ("dir/missing", "dir missing"),
        ("dir/../missing", " missing"),
        ("missing/", "there is no file or folder `missing/`"),
        ("missing/x", "there is no file or folder `missing`"),
        ("null", "`null` is neither a file nor a folder"),
    ] {
        assert_eq!(place(top.path(), path, Source::File, "new"), expected, "{path}");
    }
    let folder = place(top.path(), "dir", Source::File, "sub");
    assert_eq!(folder, "`dir/sub` is a folder, not a file");
    assert!(place(top.path(), "file/", Source::File, "x").starts_with("cannot open `file/`"));
    assert_eq!(
        place(Path::new("/"), "dev", Source::File, "null"),
        "`dev/null` is neither a file nor a folder"
    );
}

#[test]
fn folders() {
    let top = tree();
    for (path, expected) in [
        ("dir", "dir new"),
        ("to-dir/", "dir new"),
        ("missing", " missing"),
        ("missing/", " missing"),
        ("missing/x", "there is no file or folder `missing`"),
        ("file", "`file` is a file, not a folder"),
        ("to-file", "`to-file` is a file, not a folder"),
        ("null", "`null` is neither a file nor a folder"),
    ] {
        assert_eq!(place(top.path(), path, Source::Folder, "new"), expected, "{path}");
    }
    assert_eq!(place(top.path(), "dir", Source::Folder, "sub"), "dir sub");
    let file = place(top.path(), "dir", Source::Folder, "file");
    assert_eq!(file, "`dir/file` is a file, not a folder");
}

#[test]
fn contents_of_folders() {
    let top = tree();
    for (path, expected) in [
        ("dir", "dir -"),
        ("to-dir", "dir -"),
        ("file", "`file` is a file, not a folder"),
        ("missing/x", "there is no file or folder `missing`"),
        ("made", "made -"),
        ("made too/", "made too -"),
        ("made three/.", "made three -"),
        ("made", "made -"),
    ] {
        assert_eq!(place(top.path(), path, Source::Contents, "."), expected, "{path}");
    }
    let link = place(top.path(), "dangling", Source::Contents, ".");
    assert!(link.starts_with("cannot make folder `dangling`"), "{link}");
}

#[test]
fn sources() {
    let top = tree();
    let kind = |path: &str, last| {
        let path = top.path().join(path);
        source(None, path.as_os_str().as_bytes(), last).map(|(_, source)| source)
    };
    for (path, kept, followed) in [
        ("file", Source::File, Source::File),
        ("dir", Source::Folder, Source::Folder),
        ("to-dir", Source::File, Source::Folder),
        ("to-dir/", Source::Folder, Source::Folder),
        ("to-dir/.", Source::Contents, Source::Contents),
    ] {
        assert_eq!(kind(path, LastLink::Keep).unwrap(), kept, "{path}");
        assert_eq!(kind(path, LastLink::Follow).unwrap(), followed, "{path}");
    }
    assert_eq!(kind("missing", LastLink::Keep).unwrap_err().cause, Cause::Missing);
    assert_eq!(kind("dangling", LastLink::Follow).unwrap_err().cause, Cause::Missing);
    assert_eq!(kind("null", LastLink::Follow).unwrap_err().cause, Cause::Conflict);
    assert_eq!(kind("/", LastLink::Keep).unwrap(), Source::Contents);
    for (path, expected) in [
        ("/a/b", "b"),
        ("a/b/", "b"),
        ("b", "b"),
        ("/", "."),
        ("a/.", "."),
        ("..", "."),
        (".", "."),
    ] {
        assert_eq!(name(path.as_bytes()), expected.as_bytes(), "{path}");
    }
}

#[test]
fn a_root_is_not_left() {
    let top = tree();
    let root = Folder::open(top.path()).unwrap();
    let (file, _) = source(Some(&root), b"/../../file", LastLink::Keep).unwrap();
    assert_eq!(fs::fstat(&file).unwrap().st_size, 3);
    let null = source(Some(&root), b"/null", LastLink::Follow);
    assert_eq!(null.unwrap_err().cause, Cause::Missing, "the link leads into the root");
    let place = target(Some(&root), b"/to-dir", Source::File, b"x").unwrap();
    assert!(place.folder.has(b"sub"));
    assert!(target(Some(&root), b"/", Source::File, b"x").unwrap().folder.has(b"dir"));
}
