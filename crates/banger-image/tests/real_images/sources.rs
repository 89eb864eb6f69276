//! Folders, squashfs images and file systems become what they are, in every respect.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use banger_api::images::TakenName;
use banger_image::images::{Image, ImageError, ImageStore};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::listing::{Listing, comparable, in_image, on_host};
use crate::support::{Watch, fsck, half_made, run, tools};

pub fn import(folder: &Path, path: &Path, watch: &Watch) -> Result<Image, ImageError> {
    let store = ImageStore::new(folder.join("images"), tools());
    let imported = store.import(path, "a file", "x", TakenName::Replace, watch);
    assert!(half_made(&folder.join("images")).is_empty(), "{imported:?}");
    imported
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A root file system with names, types, times, holes and links of every kind.
pub fn fill(folder: &Path) {
    let write = |name: &str, bytes: &[u8], mode| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let shell = write("bin/sh", b"#!program", 0o4755);
    write("etc/os-release", b"PRETTY_NAME=\"Source 1\"\n", 0o644);
    write("etc/empty", b"", 0o600);
    write("var/large", &(0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>(), 0o644);
    fs::hard_link(&shell, folder.join("bin/ash")).unwrap();
    fs::hard_link(&shell, folder.join("etc/zsh")).unwrap();
    symlink("sh", folder.join("bin/bash")).unwrap();
    symlink("x/".repeat(300), folder.join("etc/long")).unwrap();
    let odd = OsString::from_vec(b"caf\xe9 \n\\x".to_vec());
    fs::write(folder.join("etc").join(odd), "odd").unwrap();
    for number in 0..2000 {
        write(
            &format!("usr/share/many/a rather long name of a file, number {number}"),
            b"x",
            0o644,
        );
    }
    let holes = File::create(folder.join("var/holes")).unwrap();
    holes.write_all_at(&[7; 5000], 3 << 20).unwrap();
    holes.write_all_at(&[8; 10], (40 << 20) + 1).unwrap();
    holes.set_len(50 << 20).unwrap();
    let noted = write("etc/noted", b"x", 0o644);
    rustix::fs::setxattr(&noted, "user.note", b"kept", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&noted, "user.large", &[9; 900], XattrFlags::empty()).unwrap();
    rustix::fs::mknodat(CWD, folder.join("var/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    if is_root() {
        let device = |major, minor| rustix::fs::makedev(major, minor);
        fs::create_dir(folder.join("dev")).unwrap();
        for (name, kind, device) in [
            ("null", FileType::CharacterDevice, device(1, 3)),
            ("large", FileType::BlockDevice, device(259, 70_000)),
        ] {
            let path = folder.join("dev").join(name);
            rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, device).unwrap();
        }
        chown(folder.join("etc/empty"), Some(70_000), Some(1234)).unwrap();
    }
    let times = |seconds, nanos| {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        Timestamps { last_access: time, last_modification: time }
    };
    let set = |name: &str, times| {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, folder.join(name), &times, flags).unwrap();
    };
    set("etc/empty", times(-5_000_000, 0));
    set("etc/noted", times(1_700_000_000, 123_456_789));
    set("var/large", times(5_000_000_000, 1));
    fs::set_permissions(folder, fs::Permissions::from_mode(0o751)).unwrap();
}

/// Compares two trees; `seconds` if the source has no parts of seconds.
pub fn assert_equal(wanted: Listing, found: Listing, seconds: bool, what: &str) {
    let (mut wanted, mut found) = (comparable(wanted), comparable(found));
    for all in [&mut wanted, &mut found] {
        all.remove(&b"/lost+found"[..]);
        for seen in all.values_mut().filter(|_| seconds) {
            seen.mtime_ns = 0;
        }
    }
    let names = |all: &Listing| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&wanted), names(&found), "{what}");
    for (path, wanted) in &wanted {
        let shown = String::from_utf8_lossy(path);
        let found = &found[path];
        assert!(wanted.content == found.content, "{what}: content of {shown}");
        assert_eq!(wanted, found, "{what}: {shown}");
    }
}

#[test]
fn a_folder_becomes_an_image_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let _socket = UnixListener::bind(source.join("var/socket")).unwrap();
    let watch = Watch::default();
    let image = import(temp.path(), &source, &watch).unwrap();
    fsck(&image.root_disk());
    assert_equal(on_host(&source), in_image(&image.root_disk()), false, "folder");
    let lines = watch.lines.lock().unwrap().join("\n");
    assert!(lines.contains("left out sockets: `var/socket`"), "{lines}");
    assert!(image.record.provenance.starts_with("folder with SHA-256 "), "{:?}", image.record);
    assert_eq!(image.record.system.as_deref(), Some("Source 1"));
    let used = fs::metadata(image.root_disk()).unwrap().blocks() * 512;
    assert!(used < 20 << 20, "holes take no space: {used}");
    // The same folder is the same image.
    let again = import(temp.path(), &source, &Watch::default()).unwrap();
    assert_eq!(again.record.id, image.record.id);
    fs::write(source.join("etc/empty"), "no longer").unwrap();
    let changed = import(temp.path(), &source, &Watch::default()).unwrap();
    assert_ne!(changed.record.id, image.record.id);
    assert_ne!(changed.record.provenance, image.record.provenance);
}

#[test]
fn access_lists_of_a_folder_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let entry = |tag: u16, mode: u16, id: u32| {
        [&tag.to_le_bytes()[..], &mode.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 4, 1000),
        entry(4, 4, none),
        entry(16, 4, none),
        entry(32, 0, none),
    ];
    let noted = source.join("etc/noted");
    let name = "system.posix_acl_access";
    rustix::fs::setxattr(&noted, name, &list.concat(), XattrFlags::empty()).unwrap();
    let image = import(temp.path(), &source, &Watch::default()).unwrap();
    fsck(&image.root_disk());
    let disk = image.root_disk();
    // debugfs shows ext4's encoding as the kernel's interface has it, without ids of no meaning.
    let ask = "ea_get -x /etc/noted system.posix_acl_access";
    let found = run("debugfs", &["-R", ask, disk.to_str().unwrap()], "");
    let hex: String = found.split_once('=').unwrap().1.split_whitespace().collect();
    let wanted = list.concat().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex, wanted.replace("ffffffff", "00000000"));
}

#[test]
fn a_folder_that_cannot_be_read_or_changes_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let secret = source.join("etc/secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).unwrap();
    if is_root() {
        eprintln!("SKIPPED: the superuser can read every file");
    } else {
        let error = import(temp.path(), &source, &Watch::default()).unwrap_err();
        assert!(error.to_string().contains(secret.to_str().unwrap()), "{error}");
    }
    // A file that grows while names are read and before contents are.
    struct Growing(PathBuf, SyncSender<SyncSender<()>>);
    impl Growing {
        fn new(path: PathBuf) -> Self {
            let (send, receive) = sync_channel::<SyncSender<()>>(1);
            let file = path.clone();
            // The thread that reads the folder is confined and cannot write there.
            std::thread::spawn(move || {
                for done in receive {
                    fs::write(&file, "more than before").unwrap();
                    done.send(()).unwrap();
                }
            });
            Self(path, send)
        }
    }
    impl banger_image::fetch::Progress for Growing {
        fn stage(&self, name: &str) {
            if name == "write the root disk" {
                let (done, written) = sync_channel(1);
                self.1.send(done).unwrap();
                written.recv().unwrap();
            }
        }
        fn bytes(&self, _done: u64, _total: Option<u64>) {}
        fn log(&self, _line: &str) {}
        fn cancelled(&self) -> bool {
            false
        }
    }
    let store = ImageStore::new(temp.path().join("images"), tools());
    let growing = Growing::new(source.join("etc/empty"));
    let error = store.import(&source, "x", "x", TakenName::Replace, &growing).unwrap_err();
    let named = matches!(&error, ImageError::SourceChanged { path } if *path == growing.0);
    assert!(named, "{error}");
    let growing = Growing::new(source.join("etc/new"));
    let error = store.import(&source, "x", "x", TakenName::Replace, &growing).unwrap_err();
    assert!(matches!(error, ImageError::SourceChanged { .. }), "{error}");
    assert!(half_made(&temp.path().join("images")).is_empty());
    fs::create_dir(temp.path().join("empty")).unwrap();
    let error = import(temp.path(), &temp.path().join("empty"), &Watch::default()).unwrap_err();
    assert!(matches!(error, ImageError::NotARootFs { .. }), "{error}");
}

#[test]
fn a_squashfs_image_becomes_an_image_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    // Times of squashfs have 32 bits without a sign.
    for name in ["etc/empty", "var/large"] {
        let time = Timespec { tv_sec: 1_600_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::utimensat(CWD, source.join(name), &times, flags).unwrap();
    }
    for compressor in ["gzip", "zstd", "xz"] {
        let packed = temp.path().join(compressor);
        let args = [source.to_str().unwrap(), packed.to_str().unwrap()];
        run(
            "mksquashfs",
            &[&args[..], &["-comp", compressor, "-quiet", "-no-progress"]].concat(),
            "",
        );
        let image = import(temp.path(), &packed, &Watch::default()).unwrap();
        fsck(&image.root_disk());
        assert_equal(on_host(&source), in_image(&image.root_disk()), true, compressor);
    }
    let packed = temp.path().join("gzip");
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
    let error = import(temp.path(), &packed, &Watch::default()).unwrap_err();
    assert!(error.to_string().contains(packed.to_str().unwrap()), "{error}");
}

fn mke2fs(source: &Path, image: &Path, options: &str) {
    let mut args = vec!["-q", "-F", "-d", source.to_str().unwrap()];
    args.extend(options.split_whitespace());
    args.extend([image.to_str().unwrap(), "100M"]);
    run("mke2fs", &args, "");
}

#[test]
fn file_systems_of_mke2fs_become_images_as_they_are() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    for options in [
        "-t ext4",
        "-t ext4 -b 4096",
        "-t ext4 -b 2048 -O ^64bit,^metadata_csum",
        "-t ext3 -b 1024",
        "-t ext2 -b 4096",
        "-t ext4 -b 4096 -I 512 -O ^extent,^64bit,^has_journal",
    ] {
        let disk = temp.path().join("disk");
        mke2fs(&source, &disk, options);
        let image = import(temp.path(), &disk, &Watch::default())
            .unwrap_or_else(|error| panic!("{options}: {error:?}"));
        fsck(&image.root_disk());
        let found = in_image(&image.root_disk());
        // mke2fs keeps no parts of seconds, no seconds beyond 32 bits, and makes a root folder of
        // its own.
        let plain = |mut all: Listing| {
            all.remove(&b""[..]);
            for seen in all.values_mut() {
                (seen.mtime_s, seen.mtime_ns) = (i64::from(seen.mtime_s as i32), 0);
            }
            all
        };
        assert_equal(plain(on_host(&source)), plain(found), true, options);
        let whole = temp.path().join("disk.gz");
        let packed = fs::read(&disk).unwrap();
        let mut out = flate2::write::GzEncoder::new(
            File::create(&whole).unwrap(),
            flate2::Compression::fast(),
        );
        std::io::Write::write_all(&mut out, &packed).unwrap();
        out.finish().unwrap();
        let unpacked = import(temp.path(), &whole, &Watch::default()).unwrap();
        assert_equal(in_image(&image.root_disk()), in_image(&unpacked.root_disk()), false, options);
    }
}

#[test]
fn damaged_file_systems_are_refused_and_never_hang() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fs::create_dir_all(source.join("bin/deep")).unwrap();
    fs::write(source.join("bin/sh"), "#!").unwrap();
    symlink("x/".repeat(300), source.join("bin/deep/link")).unwrap();
    let disk = temp.path().join("disk");
    let mut refused = 0;
    for options in ["-t ext4 -b 1024 -O ^metadata_csum,^has_journal", "-t ext2 -b 4096"] {
        mke2fs(&source, &disk, options);
        let whole = fs::read(&disk).unwrap();
        let used: Vec<usize> =
            (0..whole.len()).step_by(4).filter(|at| whole[*at..*at + 4] != [0; 4]).collect();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..30 {
            let mut bytes = whole.clone();
            for _ in 0..30 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = used[(random as usize >> 8) % used.len()];
                bytes[at..at + 4].copy_from_slice(&(random as u32).to_le_bytes());
            }
            fs::write(&disk, bytes).unwrap();
            match import(temp.path(), &disk, &Watch::default()) {
                Ok(image) => fsck(&image.root_disk()),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 20, "{refused} of 60");
    let mut truncated = fs::read(&disk).unwrap();
    truncated.truncate(600_000);
    fs::write(&disk, truncated).unwrap();
    assert!(import(temp.path(), &disk, &Watch::default()).is_err());
}
