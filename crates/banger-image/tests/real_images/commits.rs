//! Disks of VMs become images with the files that the guest saw: file systems that this host's
//! kernel mounts and changes as a guest does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use banger_api::images::{CommittedFrom, TakenName};
use banger_api::operation::VmTag;
use banger_image::images::{Committed, Image, ImageError, ImageStore, VmDisk};

use crate::listing::{Listing, in_image, on_host};
use crate::sources::{assert_equal, fill, import};
use crate::support::{Watch, fsck, is_root_for, run, tools, with_causes};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mount, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(args: &[&str], at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        run("mount", &[args, &[text(&at)]].concat(), "");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[text(&self.0)], "");
    }
}

fn commit(folder: &Path, base: &Image, disk: &VmDisk) -> Result<Image, ImageError> {
    let store = ImageStore::new(folder.join("images"), tools());
    let vm = VmTag { id: banger_api::VmId::from_entropy(7), name: "web".parse().unwrap() };
    let base = base.record.id.parse().unwrap();
    let from = CommittedFrom { vm, base, base_name: "x".into() };
    let committed = Committed { name: "mine", taken: TakenName::Replace, disk, from: &from };
    store.commit(committed, &Watch::default())
}

/// What a guest does: changes, deletions, renamed folders of the image, new links.
fn change(root: &Path) {
    let script = r#"set -eux
        cd "$1"
        echo changed >>etc/os-release
        echo more >>bin/ash
        rm etc/empty bin/bash
        mv usr/share/many usr/moved
        echo new >usr/moved/new
        rm 'usr/moved/a rather long name of a file, number 77'
        mv usr/share usr/moved/below
        mkdir usr/share && echo x >usr/share/x
        rm -r etc/noted && mkdir etc/noted && echo in >etc/noted/in
        mkdir -p var/lib/docker/l1 srv
        ln etc/os-release srv/linked
        mknod srv/null c 1 3
        truncate -s 20M srv/holes && printf end >>srv/holes
        chmod 700 var && chown 33:44 var/large
        mkdir -p tmp var/log && echo junk >tmp/junk && echo line >var/log/messages
        echo typed >root.txt && mkdir root && echo typed >root/.bash_history"#;
    run("bash", &["-c", script, "bash", text(root)], "");
}

/// The listing without what a commit leaves out.
fn cleaned(mut listing: Listing) -> Listing {
    assert!(listing.remove(&b"/tmp/junk"[..]).is_some());
    assert!(listing.remove(&b"/root/.bash_history"[..]).is_some());
    listing.get_mut(&b"/var/log/messages"[..]).unwrap().content.clear();
    listing
}

fn base(temp: &Path) -> Image {
    let source = temp.join("source");
    fill(&source);
    import(temp, &source, &Watch::default()).unwrap()
}

#[test]
fn a_layer_over_the_image_becomes_what_the_guest_saw() {
    if !is_root_for("mount a layer and change it") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = base(temp.path());
    let layer = temp.path().join("layer.ext4");
    run("mke2fs", &["-q", "-t", "ext4", "-m", "0", text(&layer), "300M"], "");
    let disk = VmDisk::Layer { layer: layer.clone(), image: image.root_disk() };
    let wanted = {
        let at = |name: &str| temp.path().join(name);
        let lower = Mount::new(&["-o", "loop,ro", text(&image.root_disk())], at("lower"));
        let private = Mount::new(&["-o", "loop", text(&layer)], at("layer"));
        for name in ["upper", "work"] {
            fs::create_dir(private.0.join(name)).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={p}/upper,workdir={p}/work,redirect_dir=on,index=on",
            text(&lower.0),
            p = text(&private.0)
        );
        let root = Mount::new(&["-t", "overlay", "-o", &options, "overlay"], at("root"));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let found = |line: &&str| line.contains(text(&root.0));
        assert!(mounts.lines().find(found).unwrap().contains("index=on"), "{mounts}");
        change(&root.0);
        on_host(&root.0)
    };
    let made = commit(temp.path(), &image, &disk).unwrap();
    fsck(&made.root_disk());
    assert_equal(cleaned(wanted), in_image(&made.root_disk()), false, "layer");
    assert_eq!(made.record.committed.as_ref().unwrap().base.as_str(), image.record.id);
    assert_eq!(made.record.check_overlay(), Ok(()));
    let again = commit(temp.path(), &image, &disk).unwrap();
    assert_eq!(again.record.id, made.record.id, "the same disk gives the same image");
}

#[test]
fn a_whole_disk_or_a_snapshot_becomes_what_the_guest_saw() {
    if !is_root_for("mount a disk and change it") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = base(temp.path());
    let whole = temp.path().join("root.ext4");
    // With group descriptors spread over the disk, as after it was enlarged while mounted.
    let layout = ["-q", "-t", "ext4", "-b", "4096", "-O", "meta_bg,^resize_inode", "-d"];
    let source = temp.path().join("source");
    run("mke2fs", &[&layout[..], &[text(&source), text(&whole), "20G"]].concat(), "");
    let wanted = {
        let root = Mount::new(&["-o", "loop", text(&whole)], temp.path().join("root"));
        change(&root.0);
        on_host(&root.0)
    };
    let features = run("dumpe2fs", &["-h", text(&whole)], "");
    assert!(features.contains("meta_bg"), "{features}");
    let made = commit(temp.path(), &image, &VmDisk::Whole { disk: whole.clone() }).unwrap();
    fsck(&made.root_disk());
    let wanted = cleaned(wanted);
    assert_equal(wanted.clone(), in_image(&made.root_disk()), false, "whole disk");
    let changes = temp.path().join("root.cow");
    snapshot_of(&image.root_disk(), &whole, &changes);
    let snapshot =
        VmDisk::Snapshot { changes: changes.clone(), image: image.root_disk(), bytes: 20 << 30 };
    let made = commit(temp.path(), &image, &snapshot).unwrap();
    assert_equal(wanted, in_image(&made.root_disk()), false, "snapshot");
    // A disk that was in use when its VM was killed, and what is no disk at all.
    for (file, at, bytes) in [(&whole, 1024 + 0x38, &[0_u8; 2][..]), (&changes, 0, b"what")] {
        fs::File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
    }
    for disk in [VmDisk::Whole { disk: whole }, snapshot] {
        let error = with_causes(&commit(temp.path(), &image, &disk).unwrap_err());
        assert!(error.contains(text(disk.path())), "{error}");
    }
}

/// The changes from the image to the disk as device-mapper stores them.
fn snapshot_of(image: &Path, disk: &Path, changes: &Path) {
    const CHUNK: u64 = 4096;
    let (image, disk) = (fs::File::open(image).unwrap(), fs::File::open(disk).unwrap());
    let file = fs::File::create_new(changes).unwrap();
    let header = [0x7041_6e53_u32, 1, 1, 8].map(u32::to_le_bytes).concat();
    file.write_all_at(&header, 0).unwrap();
    let bytes = disk.metadata().unwrap().len();
    let (mut old, mut number, mut at) = (vec![0; 4096], 0_u64, 0);
    while at < bytes {
        at = match rustix::fs::seek(&disk, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data / CHUNK * CHUNK,
            Err(_) => break,
        };
        let mut new = vec![0; 4096];
        disk.read_exact_at(&mut new, at).unwrap();
        old.fill(0);
        let _ = image.read_exact_at(&mut old, at);
        if old != new {
            let (table, entry) = (1 + number / 256 * 257, number % 256);
            let place = table + 1 + entry;
            let pair = [at / CHUNK, place].map(u64::to_le_bytes).concat();
            file.write_all_at(&pair, table * CHUNK + entry * 16).unwrap();
            file.write_all_at(&new, place * CHUNK).unwrap();
            number += 1;
        }
        at += CHUNK;
    }
    file.set_len(file.metadata().unwrap().len() + 2 * CHUNK).unwrap();
}
