//! Importing archives: all compressions, and everything that can be wrong with them.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use banger_api::images::TakenName;
use banger_image::fetch::{FetchError, NoProgress};
use banger_image::images::{ImageError, ImageStore, Init};
use tar::{Builder, EntryType, Header};

use crate::support::{Watch, ask, content, fsck, half_made, listing, run, tools, tools_without};

type Tar = Builder<Vec<u8>>;

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_700_000_000);
    header.set_size(bytes);
    header
}

fn file(tar: &mut Tar, path: &str, mode: u32, bytes: &[u8]) {
    let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).unwrap();
}

fn link(tar: &mut Tar, kind: EntryType, path: &str, target: &str) {
    tar.append_link(&mut header(kind, 0o777, 0), path, target).unwrap();
}

/// A small system with a bit of everything.
fn system() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "usr/bin/busybox", 0o4755, b"#!program");
    link(&mut tar, EntryType::Symlink, "bin", "usr/bin");
    link(&mut tar, EntryType::Symlink, "sbin", "usr/bin");
    link(&mut tar, EntryType::Link, "usr/bin/sh", "usr/bin/busybox");
    link(&mut tar, EntryType::Symlink, "usr/bin/init", "busybox");
    file(&mut tar, "bin/through-the-link", 0o755, b"x");
    file(&mut tar, "etc/machine-id", 0o444, b"0123456789abcdef0123456789abcdef\n");
    file(&mut tar, "etc/os-release", 0o644, b"PRETTY_NAME=\"Test OS 1\"\n");
    file(&mut tar, "etc/ssh/ssh_host_rsa_key", 0o600, b"secret");
    file(&mut tar, "etc/ssh/ssh_config", 0o644, b"x");
    let deep = "a-rather-long-folder-name/".repeat(8) + "file with ümläuts";
    file(&mut tar, &deep, 0o644, b"deep");
    file(&mut tar, "zeros", 0o644, &vec![0; 20 << 20]);
    tar.append_pax_extensions([("SCHILY.xattr.user.note", b"kept".as_slice())]).unwrap();
    file(&mut tar, "noted", 0o644, b"x");
    let mut null = header(EntryType::Char, 0o666, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    tar.append_data(&mut null, "dev/null", &[][..]).unwrap();
    file(&mut tar, "etc/ssh/ssh_config", 0o640, b"the later one counts");
    tar.into_inner().unwrap()
}

fn compressed(bytes: &[u8], kind: &str, folder: &Path) -> PathBuf {
    let path = folder.join(format!("rootfs.tar.{kind}"));
    match kind {
        "plain" => fs::write(&path, bytes).unwrap(),
        "gz" => {
            let file = fs::File::create(&path).unwrap();
            let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap();
        }
        "zst" => fs::write(&path, zstd::encode_all(bytes, 1).unwrap()).unwrap(),
        _ => {
            let plain = folder.join("rootfs.tar");
            fs::write(&plain, bytes).unwrap();
            run("xz", &["-0", plain.to_str().unwrap()], "");
        }
    }
    path
}

fn store() -> (tempfile::TempDir, PathBuf, ImageStore) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("images");
    let store = ImageStore::new(root.clone(), tools());
    (temp, root, store)
}

#[test]
fn every_compression_gives_the_same_system() {
    let (temp, root, store) = store();
    let bytes = system();
    let mut first = None;
    for kind in ["plain", "gz", "zst", "xz"] {
        let path = compressed(&bytes, kind, temp.path());
        let watch = Watch::default();
        let image = store.import(&path, "a file", "test", TakenName::Replace, &watch).unwrap();
        assert_eq!(image.names, ["test"], "the name moves to the newest");
        fsck(&image.root_disk());
        image.check().unwrap();
        image.verify().unwrap();
        let listing = listing(&image.root_disk());
        assert_eq!(first.get_or_insert_with(|| listing.clone()), &listing, "{kind}");
        let left_out = ["left out /etc/ssh/ssh_host_rsa_key".to_owned()];
        assert_eq!(*watch.lines.lock().unwrap(), left_out);
        assert_eq!(image.record.init, Some(Init::Busybox));
        assert_eq!(image.record.system.as_deref(), Some("Test OS 1"));
    }
    assert!(half_made(&root).is_empty());
    let objects = store.list().objects;
    assert_eq!(objects.len(), 4);
    assert!(objects.iter().all(|(_, names)| names.len() == 1), "each keeps a name: {objects:?}");
    assert_eq!(store.replaced().unwrap().len(), 1, "the last one of `test` is not decided");
    for name in objects.iter().flat_map(|(_, names)| names).filter(|name| *name != "test") {
        store.untag(name).unwrap();
    }
    let (pruned, freed) = store.prune(&[]).unwrap();
    assert_eq!(pruned.len(), 3);
    assert!(freed > 0);
}

#[test]
fn an_image_contains_the_archive() {
    let (temp, _root, store) = store();
    let path = compressed(&system(), "plain", temp.path());
    let image = store.import(&path, "a file", "test", TakenName::Replace, &NoProgress).unwrap();
    let disk = image.root_disk();
    let listing = listing(&disk);
    let busybox = &listing["/usr/bin/busybox"];
    assert_eq!((busybox.mode.as_str(), busybox.uid.as_str()), ("104755", "7"));
    assert_eq!(busybox.inode, listing["/usr/bin/sh"].inode);
    assert!(listing.contains_key("/usr/bin/through-the-link"));
    assert_eq!(content(&disk, "/etc/machine-id"), "");
    assert_eq!(listing["/etc/machine-id"].mode, "100444");
    assert_eq!(content(&disk, "/etc/ssh/ssh_config"), "the later one counts");
    assert!(!listing.contains_key("/etc/ssh/ssh_host_rsa_key"));
    let null = ask(&disk, "stat /dev/null");
    assert!(null.contains("Device major/minor number: 01:03"), "{null}");
    assert!(ask(&disk, "ea_get /noted user.note").contains("kept"));
    let deep = "/a-rather-long-folder-name".repeat(8) + "/file with ümläuts";
    assert_eq!(content(&disk, &deep), "deep");
    assert_eq!(listing["/zeros"].bytes, (20 << 20).to_string());
    use std::os::unix::fs::MetadataExt;
    let used = fs::metadata(&disk).unwrap().blocks() * 512;
    assert!(used < 4 << 20, "zeros take no room: {used} bytes");
    // The same archive is the same image.
    let again = store.import(&path, "a file", "other", TakenName::Replace, &NoProgress).unwrap();
    assert_eq!(again.record.id, image.record.id);
    assert_eq!(again.names, ["other", "test"]);
}

/// The whole story of an error.
fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[test]
fn bad_archives_are_refused_by_name_and_leave_nothing() {
    let (temp, root, store) = store();
    let whole = system();
    let packed = |kind| fs::read(compressed(&whole, kind, temp.path())).unwrap();
    let cut = |bytes: &[u8], part: usize| bytes[..bytes.len() * part / 10].to_vec();
    let changed = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].copy_from_slice(b"\xde\xad\xbe\xef\xde\xad\xbe\xef");
        bytes
    };
    let mut readme = Builder::new(Vec::new());
    file(&mut readme, "README", 0o644, b"no system");
    let mut huge = header(EntryType::Regular, 0o755, 1 << 50);
    huge.set_path("bin/huge").unwrap();
    huge.set_cksum();
    let mut escaping = header(EntryType::Regular, 0o755, 0);
    escaping.as_old_mut().name[..11].copy_from_slice(b"../../etc/x");
    escaping.set_cksum();
    let (gz, zst, xz) = (packed("gz"), packed("zst"), packed("xz"));
    let cases = [
        ("empty", vec![], "it is empty"),
        ("zeros", vec![0; 10240], "it is empty"),
        ("text", b"#!/bin/sh\n".repeat(100), "no tar archive"),
        ("cut.tar", cut(&whole, 5), "truncated"),
        ("cut.gz", cut(&gz, 6), "cannot be used"),
        ("cut.zst", cut(&zst, 6), "cannot be used"),
        ("cut.xz", cut(&xz, 6), "xz"),
        ("changed.gz", changed(gz.clone()), "cannot be used"),
        ("changed.xz", changed(xz.clone()), "xz"),
        ("readme.tar", readme.into_inner().unwrap(), "is no root file system"),
        ("huge.tar", huge.as_bytes().to_vec(), "not enough space"),
        ("escaping.tar", escaping.as_bytes().to_vec(), "leads out of the archive"),
    ];
    for (name, bytes, why) in cases {
        let path = temp.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error =
            store.import(&path, "a file", "bad", TakenName::Replace, &NoProgress).unwrap_err();
        let text = error_text(&error);
        assert!(text.contains(why), "{name}: {text}");
        let names_the_place = text.contains(path.to_str().unwrap()) || why == "not enough space";
        assert!(names_the_place, "{name}: {text}");
        assert!(half_made(&root).is_empty(), "{name}");
    }
    assert!(store.list().objects.is_empty());
    assert!(store.resolve("bad").is_err());
}

#[test]
fn invalid_archives_and_names_are_refused() {
    let (temp, _root, store) = store();
    for path in [Path::new("/nowhere/x.tar"), temp.path()] {
        let error = store.import(path, "a file", "x", TakenName::Replace, &NoProgress).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let path = compressed(&system(), "plain", temp.path());
    for name in ["", "Big", "a/b", "../x", "0123456789abcdef"] {
        let error =
            store.import(&path, "a file", name, TakenName::Replace, &NoProgress).unwrap_err();
        let refused = matches!(error, ImageError::Fetch(FetchError::BadName { .. }));
        assert!(refused, "{name}: {error}");
    }
}

#[test]
fn a_missing_xz_is_named_with_its_package() {
    let (temp, root, _) = store();
    let path = compressed(&system(), "xz", temp.path());
    let without = tools_without("xz", &temp.path().join("bin"));
    let store = ImageStore::new(root, without);
    let error = store.import(&path, "a file", "x", TakenName::Replace, &NoProgress).unwrap_err();
    let missing =
        matches!(error, ImageError::Fetch(FetchError::MissingTool { package: "xz-utils", .. }));
    assert!(missing, "{error}");
}

#[test]
fn a_cancelled_import_leaves_nothing() {
    let (temp, root, store) = store();
    for kind in ["plain", "xz"] {
        let path = compressed(&system(), kind, temp.path());
        for stage in ["check", "read", "write", "compute"] {
            let error = store
                .import(&path, "a file", "x", TakenName::Replace, &Watch::cancelling_at(stage))
                .unwrap_err();
            let cancelled = matches!(error, ImageError::Fetch(FetchError::Cancelled));
            assert!(cancelled, "{kind} at `{stage}`: {}", error_text(&error));
            assert!(half_made(&root).is_empty(), "{kind} at `{stage}`");
        }
    }
    assert!(store.list().objects.is_empty());
}
