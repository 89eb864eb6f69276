//! The storage drivers, all of them with the same suite, on file systems that share blocks and on
//! one that does not.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
mod mounts;
mod pretended;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_api::ErrorCode;
use banger_engine::drivers::Storage;
use banger_engine::plan::VmPlan;
use banger_host::capabilities::WorkDisk;
use banger_host::layout::Layout;
use banger_host::storage::{Blanks, FileStorage, RootFrom, Shared, reflinks};

use conformance::{Root, RootDisk, Subject};
use mounts::Mounted;

const VM: &str = "00000000d15c";

/// Root disks that are ordinary files.
struct InFile(Layout);

impl RootDisk for InFile {
    fn write(&self, vm: &VmPlan, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.0.root_disk(&vm.id)).unwrap();
        file.write_all_at(bytes, at).unwrap();
        file.sync_all().unwrap();
    }

    fn read(&self, vm: &VmPlan, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let file = File::open(self.0.root_disk(&vm.id)).unwrap();
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

fn blanks(layout: &Layout) -> Blanks {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let mke2fs = banger_host::probe::find_program("mke2fs".as_ref(), path);
    Blanks::new(layout.blank_disks(), mke2fs)
}

fn driver(layout: &Layout, from: RootFrom, image: &Path) -> FileStorage {
    let (image, blanks) = (image.to_owned(), blanks(layout));
    let modules = Arc::new(|_: &VmPlan| PathBuf::from("/nonexistent"));
    let shared = Shared { image: Arc::new(move |_| image.clone()), modules };
    FileStorage::new(layout.clone(), from, shared, blanks)
}

/// Runs the suite in a folder; returns what the drivers of that folder are.
async fn suite(folder: &Path, from: RootFrom, on: Option<&Mounted>) {
    let cache = tempfile::tempdir().unwrap();
    let layout = conformance::layout(folder, cache.path());
    let image = conformance::image(&layout.data);
    let root = if matches!(from, RootFrom::Layer) { Root::Layer } else { Root::Whole };
    let disk: Box<dyn RootDisk> = Box::new(InFile(layout.clone()));
    let storage = driver(&layout, from, &image);
    let work = &WorkDisk::new(layout.clone(), blanks(&layout), Arc::new(|_| None));
    let subject = Subject { storage: &storage, disk: &*disk, work, root, layout, image };
    let vm = conformance::plan(VM);
    conformance::all(&subject, &vm).await;
    if let Some(mounted) = on {
        conformance::full(&subject, &vm, async || mounted.fill()).await;
    }
}

async fn on(kind: &str, drivers: &[RootFrom]) {
    let Some(mounted) = Mounted::new(kind) else { return };
    for (number, from) in drivers.iter().enumerate() {
        let folder = mounted.path().join(number.to_string());
        suite(&folder, from.clone(), Some(&mounted)).await;
    }
}

#[tokio::test]
async fn overlay_and_copy_in_any_folder() {
    for from in [RootFrom::Layer, RootFrom::Copy] {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        suite(folder.path(), from, None).await;
    }
}

#[tokio::test]
async fn overlay_and_copy_on_ext4() {
    on("ext4", &[RootFrom::Layer, RootFrom::Copy]).await;
}

#[tokio::test]
async fn overlay_copy_and_reflink_on_xfs() {
    on("xfs", &[RootFrom::Layer, RootFrom::Copy, RootFrom::Clone]).await;
}

#[tokio::test]
async fn overlay_copy_and_reflink_on_btrfs() {
    on("btrfs", &[RootFrom::Layer, RootFrom::Copy, RootFrom::Clone]).await;
}

async fn blocks_are_shared_on(kind: &str) {
    let Some(mounted) = Mounted::new(kind) else { return };
    let cache = tempfile::tempdir().unwrap();
    let layout = conformance::layout(&mounted.path(), cache.path());
    reflinks(&layout.data, &layout.state).unwrap();
    let image = conformance::image(&layout.data);
    let storage = driver(&layout, RootFrom::Clone, &image);
    let vm = conformance::plan(VM);
    storage.create_folder(&vm).await.unwrap();
    storage.create_root(&vm, &conformance::spec()).await.unwrap();
    let file = File::open(layout.root_disk(&vm.id)).unwrap();
    file.sync_all().unwrap();
    let share = banger_sys::reflink::share(&file).unwrap();
    assert_eq!((share.own, share.shared), (0, 2 << 20));
    assert_eq!(
        storage.usage(&vm, &conformance::spec()).await.root_used_bytes,
        0,
        "the image's blocks are the image's"
    );
    let disk = InFile(layout.clone());
    disk.write(&vm, 1 << 30 >> 1, &[7; 65536]);
    disk.write(&vm, 0, &[7; 65536]);
    let used = storage.usage(&vm, &conformance::spec()).await.root_used_bytes;
    assert!((131_072..=4 << 20).contains(&used), "{used}");
    storage.remove_root(&vm).await.unwrap();
    // What the copying driver makes there is sparse too.
    let copying = driver(&layout, RootFrom::Copy, &image);
    copying.create_root(&vm, &conformance::spec()).await.unwrap();
    assert!(copying.usage(&vm, &conformance::spec()).await.root_used_bytes <= 4 << 20);
}

#[tokio::test]
async fn blocks_are_shared_on_xfs() {
    blocks_are_shared_on("xfs").await;
}

#[tokio::test]
async fn blocks_are_shared_on_btrfs() {
    blocks_are_shared_on("btrfs").await;
}

#[tokio::test]
async fn reflink_is_refused_clearly() {
    let Some(mounted) = Mounted::new("ext4") else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let layout = conformance::layout(&mounted.path(), elsewhere.path());
    let vm = conformance::plan(VM);
    for (image_folder, word) in [
        (elsewhere.path(), "different file systems"),
        (layout.data.as_path(), "cannot share blocks between files"),
    ] {
        let why = reflinks(image_folder, &layout.state).unwrap_err();
        assert!(why.contains(word), "{why}");
        let image: PathBuf = conformance::image(image_folder);
        let storage = driver(&layout, RootFrom::Clone, &image);
        storage.create_folder(&vm).await.unwrap();
        let error = storage.create_root(&vm, &conformance::spec()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::HostNotReady);
        assert!(error.message.contains(word), "{error}");
        assert!(!error.hints.is_empty());
        let left = std::fs::read_dir(layout.vm(&vm.id)).unwrap();
        assert!(left.map(|entry| entry.unwrap().path()).all(|path| path.is_dir()));
    }
}

#[tokio::test]
async fn dm_snapshot_with_a_pretended_root() {
    let folder = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let layout = conformance::layout(folder.path(), cache.path());
    let image = conformance::image(&layout.data);
    let root = Arc::new(pretended::Root::default());
    let storage = driver(&layout, RootFrom::Snapshot(root.clone()), &image);
    let work = &WorkDisk::new(layout.clone(), blanks(&layout), Arc::new(|_| None));
    let disk = &*root;
    let subject = Subject { storage: &storage, disk, work, root: Root::Whole, layout, image };
    conformance::all(&subject, &conformance::plan(VM)).await;
    assert!(root.is_empty(), "every device was given back");
}
