//! What GNU tar unpacks is what an import makes of the same archive.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_api::images::TakenName;
use banger_image::fetch::NoProgress;
use banger_image::images::ImageStore;

use crate::listing::{Listing, Seen, comparable, in_image, on_host};
use crate::support::{fsck, tools};

fn tar(folder: &Path, args: &[&OsStr]) -> bool {
    let mut command = Command::new("tar");
    command.current_dir(folder).env("LC_ALL", "C").args(args);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    // A newer GNU tar asks for an option before it packs in the old format.
    assert!(output.status.success() || printed.contains("exit delayed"), "{args:?}: {printed}");
    output.status.success()
}

fn pack(folder: &Path, archive: &Path, options: &str) -> bool {
    let options: Vec<&OsStr> = options.split_whitespace().map(OsStr::new).collect();
    let rest = [OsStr::new("-cf"), archive.as_os_str(), OsStr::new("--numeric-owner")];
    tar(folder, &[&rest[..], &options, &[OsStr::new(".")]].concat())
}

/// Unpacks by GNU tar, imports, and compares.
fn compare(archive: &Path, what: &str) {
    let temp = tempfile::tempdir().unwrap();
    let (there, root) = (temp.path().join("there"), temp.path().join("images"));
    fs::create_dir(&there).unwrap();
    let args = ["-xpf", archive.to_str().unwrap(), "--numeric-owner"].map(OsStr::new);
    assert!(tar(&there, &args), "{what}: GNU tar");
    let store = ImageStore::new(root, tools());
    let image = store
        .import(archive, "a file", "x", TakenName::Replace, &NoProgress)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    compare_trees(&there, &image.root_disk(), what);
}

/// Compares a folder with the root file system of an image.
pub fn compare_trees(there: &Path, disk: &Path, what: &str) {
    fsck(disk);
    let (mut theirs, mut ours) = (comparable(on_host(there)), comparable(in_image(disk)));
    // Folders that the archive does not name: tar gives them the time of unpacking.
    for (path, seen) in &mut theirs {
        if seen.kind == "folder" && ours.get(path).is_some_and(|seen| seen.mtime_s == 0) {
            seen.mtime_s = 0;
            seen.mode = ours[path].mode;
            seen.owner = ours[path].owner;
        }
    }
    for path in [&b"/"[..], b""] {
        theirs.remove(path);
        ours.remove(path);
    }
    let names = |listing: &Listing| listing.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&theirs), names(&ours), "{what}");
    for (path, theirs) in &theirs {
        let (shown, ours) = (String::from_utf8_lossy(path), &ours[path]);
        assert!(theirs.content == ours.content, "{what}: content of {shown}");
        // Not every format of tar has parts of seconds.
        let plain = |seen: &Seen| Seen { content: Vec::new(), mtime_ns: 0, ..seen.clone() };
        assert_eq!(plain(theirs), plain(ours), "{what}: {shown}");
    }
}

/// Something that can be run, and names, times and contents of every kind.
pub fn fill(folder: &Path, long_names: bool) {
    let write = |name: &[u8], text: &[u8], mode| {
        let path = folder.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    write(b"bin/sh", b"#!", 0o4755);
    write(b"etc/empty", b"", 0o600);
    write(b"caf\xe9/\xff\xfe", b"latin", 0o644);
    write("umläut\n".as_bytes(), b"line", 0o644);
    for number in 0..400_u16 {
        let name =
            [b"many/\xe9 file with a longer name ".as_slice(), &number.to_le_bytes()].concat();
        if !name.contains(&0) && name.iter().filter(|byte| **byte == b'/').count() == 1 {
            write(&name, &number.to_le_bytes(), 0o644);
        }
    }
    fs::hard_link(folder.join("bin/sh"), folder.join("etc/second")).unwrap();
    symlink(OsStr::from_bytes(b"nowhere/\xe9"), folder.join("link")).unwrap();
    symlink("/absolute", folder.join("bin/link")).unwrap();
    let early = write(b"early", b"1960", 0o644);
    let before = std::time::UNIX_EPOCH - std::time::Duration::from_secs(31_536_000);
    fs::File::options().write(true).open(early).unwrap().set_modified(before).unwrap();
    let mut holes = fs::File::create(folder.join("holes")).unwrap();
    holes.set_len(3_000_001).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"middle", 1_500_000).unwrap();
    holes.write_all(b"start").unwrap();
    fs::File::create(folder.join("only-holes")).unwrap().set_len(1 << 20).unwrap();
    let many = fs::File::create(folder.join("many-holes")).unwrap();
    for number in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&many, b"x", number * 65_536).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
        let mode = Mode::from_raw_mode(0o620);
        mknodat(CWD, folder.join("null"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
        let path = folder.join("etc/empty");
        std::os::unix::fs::lchown(path, Some(3_000_000), Some(70_000)).unwrap();
    }
    if long_names {
        let long = format!("{}/{}", "folder-".repeat(30), "file-".repeat(40));
        write(long.as_bytes(), b"long", 0o644);
        symlink(format!("{}/x", "target-".repeat(50)), folder.join("long-link")).unwrap();
        fs::hard_link(folder.join(&long), folder.join("long-hard")).unwrap();
        let raw = [&b"\xe9"[..], &[b'r'; 150]].concat();
        symlink(OsStr::from_bytes(&raw), folder.join("long-raw-link")).unwrap();
    }
}

#[test]
fn every_format_of_gnu_tar_is_read_as_it_reads_it() {
    let temp = tempfile::tempdir().unwrap();
    let (short, long) = (temp.path().join("short"), temp.path().join("long"));
    fill(&short, false);
    fill(&long, true);
    // A format that cannot tell owners of six digits or times before 1970.
    let old = temp.path().join("old");
    fill(&old, false);
    fs::remove_file(old.join("early")).unwrap();
    let _ = fs::remove_file(old.join("null"));
    std::os::unix::fs::lchown(old.join("etc/empty"), Some(7), Some(8)).ok();
    let list = temp.path().join("list");
    for (folder, options) in [
        (&old, "--format=v7"),
        (&old, "--format=ustar"),
        (&long, "--format=oldgnu"),
        (&long, "--format=gnu"),
        (&long, "--format=posix"),
        (&long, "--format=oldgnu --sparse"),
        (&long, "--format=gnu --sparse --label=volume"),
        (&long, "--format=posix --sparse --sparse-version=0.0"),
        (&long, "--format=posix --sparse --sparse-version=0.1"),
        (&long, "--format=posix --sparse --sparse-version=1.0 --label=volume"),
        (&long, "--format=gnu --gzip --blocking-factor=1"),
        (&long, "--format=posix --pax-option=globexthdr.mtime:=5"),
        (&long, "--format=gnu --listed-incremental"),
    ] {
        let archive = temp.path().join("x.tar");
        let _ = fs::remove_file(&list);
        let options = match options.strip_suffix("--listed-incremental") {
            Some(rest) => format!("{rest} --listed-incremental={}", list.display()),
            None => options.to_owned(),
        };
        pack(folder, &archive, &options);
        compare(&archive, &options);
    }
}

/// Archives that are odd at their end or in their wrapping, but not to GNU tar.
#[test]
fn odd_ends_and_wrappings_are_read_as_gnu_tar_reads_them() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("folder");
    fill(&folder, false);
    let archive = temp.path().join("x.tar");
    pack(&folder, &archive, "--format=gnu");
    fs::write(folder.join("last"), "ends in no zeros").unwrap();
    tar(&folder, &[OsStr::new("-rf"), archive.as_os_str(), OsStr::new("last")]);
    let whole = fs::read(&archive).unwrap();
    let end = whole.len() - whole.iter().rev().take_while(|byte| **byte == 0).count();
    let end = end.next_multiple_of(512);
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skippable = b"\x50\x2a\x4d\x18\x08\0\0\0nothing!";
    let (one, two) = whole.split_at(end / 2);
    let cases: [(&str, Vec<u8>); 9] = [
        ("no end mark", whole[..end].to_vec()),
        ("one block of zeros", whole[..end + 512].to_vec()),
        ("zeros after the end", [&whole[..], &[0; 100_000]].concat()),
        ("garbage after the end", [&whole[..], b"garbage".repeat(3000).as_slice()].concat()),
        ("another archive after the end", [&whole[..], &whole].concat()),
        ("members of gzip", [gzip(one), gzip(two)].concat()),
        ("gzip and zeros", [gzip(&whole), vec![0; 5000]].concat()),
        ("frames of zstd", [zstd(one), zstd(two)].concat()),
        ("a skippable frame", [&skippable[..], &zstd(&whole)].concat()),
    ];
    for (what, bytes) in cases {
        // GNU tar sees a compression by the first bytes, or by the name.
        let name =
            if what.contains("zstd") || what.contains("skippable") { "x.tar.zst" } else { "y" };
        let path = temp.path().join(name);
        fs::write(&path, bytes).unwrap();
        if what.contains("skippable") {
            // `tar -xf` takes it for no archive; `tar --zstd` reads it.
            let plain = temp.path().join("plain");
            fs::write(&plain, &whole).unwrap();
            compare(&plain, what);
            let store = ImageStore::new(temp.path().join("images"), tools());
            store.import(&path, "a file", "x", TakenName::Replace, &NoProgress).unwrap();
            continue;
        }
        compare(&path, what);
    }
}

#[test]
fn absolute_names_are_made_relative_as_gnu_tar_does() {
    let temp = tempfile::tempdir().unwrap();
    let folder: PathBuf = temp.path().join("folder");
    fill(&folder, true);
    let archive = temp.path().join("x.tar");
    let mut args = vec![OsStr::new("-cPf"), archive.as_os_str(), OsStr::new("--numeric-owner")];
    args.push(OsStr::new("--transform=s,^\\./,/,h"));
    args.push(OsStr::new("--transform=s,^\\./,/,r"));
    args.push(OsStr::new("."));
    tar(&folder, &args);
    compare(&archive, "absolute names");
}
