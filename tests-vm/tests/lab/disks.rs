//! Root disks as device-mapper snapshots, on a kernel that has them.

#[path = "../../../crates/banger-host/tests/storage/conformance.rs"]
mod conformance;
#[path = "../../../crates/banger-host/tests/storage/mounts.rs"]
mod mounts;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use banger_api::{ApiError, VmId};
use banger_engine::capability::{Effect as _, VmContext};
use banger_engine::drivers::{Applied, Storage, Undone};
use banger_engine::plan::VmPlan;
use banger_host::capabilities::WorkDisk;
use banger_host::layout::Layout;
use banger_host::storage::{Blanks, FileStorage, RootFrom, Shared, SnapshotRoot};
use banger_root::disks::snapshot;
use banger_root::{Did, Kind};
use banger_sys::dm;

use conformance::{Root, RootDisk, Subject};
use mounts::Mounted;

const MIB: u64 = 1 << 20;
const ROOT: u64 = 64 * MIB;

/// The root disk of a VM, through its device.
struct InDevice;

fn device(id: &str) -> PathBuf {
    let id: VmId = id.parse().unwrap();
    snapshot::find(&id).unwrap().unwrap().path
}

fn write(path: &Path, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    let disk = OpenOptions::new().write(true).open(path)?;
    disk.write_all_at(bytes, at)?;
    disk.sync_all()
}

fn read(path: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

impl RootDisk for InDevice {
    fn write(&self, vm: &VmPlan, at: u64, bytes: &[u8]) {
        write(&device(vm.id.as_str()), at, bytes).unwrap();
    }

    fn read(&self, vm: &VmPlan, at: u64, length: usize) -> Vec<u8> {
        read(&device(vm.id.as_str()), at, length)
    }
}

/// Root's part, without a helper between.
struct Here;

#[async_trait]
impl SnapshotRoot for Here {
    async fn attach(
        &self,
        vm: &VmId,
        image: OwnedFd,
        cow: OwnedFd,
        root_bytes: u64,
    ) -> Result<Applied, ApiError> {
        let id: VmId = vm.as_str().parse().unwrap();
        match snapshot::attach(&id, image.as_fd(), cow.as_fd(), root_bytes).unwrap().0 {
            Did::Made => Ok(Applied::Created),
            _ => Ok(Applied::AlreadyThere),
        }
    }

    async fn reload(&self, vm: &VmId) -> Result<Applied, ApiError> {
        match snapshot::reload(vm).unwrap() {
            Did::Made => Ok(Applied::Created),
            _ => Ok(Applied::AlreadyThere),
        }
    }

    async fn detach(&self, vm: &VmId) -> Result<Undone, ApiError> {
        let id: VmId = vm.as_str().parse().unwrap();
        match snapshot::detach(&id).unwrap() {
            Did::Removed => Ok(Undone::Removed),
            _ => Ok(Undone::WasAbsent),
        }
    }
}

struct Disk {
    id: VmId,
    image: File,
    cow: File,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn new(id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = File::open(conformance::image(folder.path())).unwrap();
        let cow = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join("cow"))
            .unwrap();
        cow.set_len(snapshot::cow_bytes(ROOT)).unwrap();
        Self { id: id.parse().unwrap(), image, cow, _folder: folder }
    }

    fn attach(&self) -> (Did, PathBuf) {
        let (image, cow) = (self.image.as_fd(), self.cow.as_fd());
        let (did, device) = snapshot::attach(&self.id, image, cow, ROOT).unwrap();
        (did, device.path)
    }

    fn detach(&self) -> Did {
        snapshot::detach(&self.id).unwrap()
    }

    fn nothing_is_left(&self) {
        assert!(snapshot::all_of(&self.id).unwrap().is_empty());
        for (program, words) in [("dmsetup", "ls"), ("losetup", "-a")] {
            let output = Command::new(program).arg(words).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(!printed.contains(self.id.as_str()), "{program}: {printed}");
        }
    }
}

#[test]
fn disks_keep_written_data() {
    let disk = Disk::new("00000000a001");
    assert_eq!(disk.detach(), Did::WasAbsent);
    let (did, path) = disk.attach();
    assert_eq!(did, Did::Made);
    assert_eq!(disk.attach(), (Did::WasThere, path.clone()));
    write(&path, 8 * MIB, b"changed").unwrap();
    write(&path, ROOT - MIB, b"beyond the image").unwrap();
    assert_eq!(disk.detach(), Did::Removed);
    disk.nothing_is_left();
    let (did, path) = disk.attach();
    assert_eq!(did, Did::Made);
    assert_eq!(read(&path, 8 * MIB, 7), b"changed");
    assert_eq!(read(&path, ROOT - MIB, 16), b"beyond the image");
    let mut image = [0; 7];
    disk.image.read_exact_at(&mut image, 8 * MIB).unwrap();
    assert_eq!(image[..], conformance::noise(8 * MIB, 7));
    assert!(banger_sys::sparse::allocated_bytes(&disk.cow).unwrap() < MIB);
    assert_eq!(disk.detach(), Did::Removed);
    assert_eq!(disk.detach(), Did::WasAbsent);
    disk.nothing_is_left();
}

#[test]
fn disks_that_are_held_are_waited_for() {
    let disk = Disk::new("00000000a002");
    let (_, path) = disk.attach();
    let held = File::open(&path).unwrap();
    let released = Arc::new(AtomicBool::new(false));
    let release = released.clone();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        release.store(true, Ordering::SeqCst);
        drop(held);
    });
    assert_eq!(disk.detach(), Did::Removed);
    assert!(released.load(Ordering::SeqCst), "the device was detached while it was open");
    holder.join().unwrap();
    disk.nothing_is_left();

    let (_, path) = disk.attach();
    let held = File::open(&path).unwrap();
    let error = snapshot::detach(&disk.id).unwrap_err();
    assert_eq!(error.kind, Kind::Busy);
    assert!(error.message.contains("banger-00000000a002-root"), "{error}");
    assert_eq!(disk.attach().0, Did::WasThere, "it is whole for as long as it is held");
    drop(held);
    assert_eq!(disk.detach(), Did::Removed);
    disk.nothing_is_left();
}

#[test]
fn disks_that_a_killed_process_left_are_finished_or_removed() {
    let disk = Disk::new("00000000a003");
    let names = ["base", "root"].map(|what| disk.id.object_name(what));
    for name in &names {
        // Without a table, and with one that was never put to work.
        dm::create(name).unwrap();
        let zero =
            dm::Target { start: 0, length: 8, kind: "zero".into(), arguments: String::new() };
        dm::load(name, std::slice::from_ref(&zero), dm::Access::ReadWrite).unwrap();
        assert_eq!(disk.detach(), Did::Removed);
        disk.nothing_is_left();
        dm::create(name).unwrap();
        let (did, path) = disk.attach();
        assert_eq!(did, Did::Made);
        assert_eq!(read(&path, 0, 64), conformance::noise(0, 64));
        disk.detach();
        // With another table than it should have.
        dm::create(name).unwrap();
        dm::load(name, &[zero], dm::Access::ReadWrite).unwrap();
        dm::resume(name).unwrap();
        let (_, path) = disk.attach();
        assert_eq!(read(&path, 0, 64), conformance::noise(0, 64));
        disk.detach();
        disk.nothing_is_left();
    }
}

#[test]
fn disks_attach_and_detach_many_at_once() {
    let ids: Vec<String> = (0..8).map(|n| format!("00000000b00{n}")).collect();
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(move || {
                let disk = Disk::new(id);
                for round in 0..3 {
                    let (_, path) = disk.attach();
                    write(&path, round * MIB, id.as_bytes()).unwrap();
                    disk.detach();
                }
                let (_, path) = disk.attach();
                assert!((0..3).all(|n| read(&path, n * MIB, id.len()) == id.as_bytes()));
                disk.detach();
                disk.nothing_is_left();
            });
        }
    });
}

fn blanks(layout: &Layout) -> Blanks {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let mke2fs = banger_host::probe::find_program("mke2fs".as_ref(), path);
    Blanks::new(layout.blank_disks(), mke2fs)
}

fn driver(layout: &Layout, image: &Path) -> FileStorage {
    let (image, blanks) = (image.to_owned(), blanks(layout));
    let from = RootFrom::Snapshot(Arc::new(Here));
    let modules = Arc::new(|_: &VmPlan| PathBuf::from("/nonexistent"));
    let shared = Shared { image: Arc::new(move |_| image.clone()), modules };
    FileStorage::new(layout.clone(), from, shared, blanks)
}

#[tokio::test]
async fn disks_conform() {
    let mounted = Mounted::new("ext4").unwrap();
    let cache = tempfile::tempdir().unwrap();
    let layout = conformance::layout(&mounted.path(), cache.path());
    let image = conformance::image(&layout.data);
    let storage = driver(&layout, &image);
    let (disk, work) =
        (&InDevice, &WorkDisk::new(layout.clone(), blanks(&layout), Arc::new(|_| None)));
    let subject = Subject { storage: &storage, disk, work, root: Root::Whole, layout, image };
    let vm = conformance::plan("00000000a004");
    conformance::all(&subject, &vm).await;
    conformance::full(&subject, &vm, async || mounted.fill()).await;
}

/// The kernel gives a snapshot up when the host cannot store a change; what was there before is not
/// lost with it.
#[tokio::test]
async fn disks_survive_a_full_host() {
    let mounted = Mounted::new("ext4").unwrap();
    let cache = tempfile::tempdir().unwrap();
    let layout = conformance::layout(&mounted.path(), cache.path());
    let image = conformance::image(&layout.data);
    let storage = driver(&layout, &image);
    let vm = conformance::plan("00000000a005");
    storage.create_folder(&vm).await.unwrap();
    storage.create_root(&vm, &conformance::spec()).await.unwrap();
    let context = VmContext { vm: &vm, spec: &conformance::spec(), run: None, interrupt: None };
    WorkDisk::new(layout.clone(), blanks(&layout), Arc::new(|_| None))
        .apply(context)
        .await
        .unwrap();
    storage.attach(&vm, &conformance::spec()).await.unwrap();
    let path = device(vm.id.as_str());
    write(&path, 4 * MIB, b"before").unwrap();
    let filler = mounted.fill();
    let noise = conformance::noise(1, MIB as usize);
    let failed = (0..256).map(|n| write(&path, (64 + n) * MIB, &noise)).find(|one| one.is_err());
    assert!(failed.is_some(), "a full disk took 256 MiB");
    let repair = storage.repair().unwrap();
    assert_eq!(repair.repair(&vm).await.unwrap(), Applied::AlreadyThere, "there is no room yet");
    // A process that has the device open uses it again when there is room, without a new attach.
    let open = File::open(&path).unwrap();
    std::fs::remove_file(filler).unwrap();
    assert_eq!(repair.repair(&vm).await.unwrap(), Applied::Created);
    assert_eq!(repair.repair(&vm).await.unwrap(), Applied::AlreadyThere);
    let mut bytes = [0; 6];
    open.read_exact_at(&mut bytes, 4 * MIB).unwrap();
    assert_eq!(&bytes, b"before");
    write(&path, 6 * MIB, b"between").unwrap();
    drop(open);
    // The same by a new attach.
    let filler = mounted.fill();
    let failed = (0..256).map(|n| write(&path, (64 + n) * MIB, &noise)).find(|one| one.is_err());
    assert!(failed.is_some(), "a full disk took 256 MiB");
    storage.detach(&vm).await.unwrap();
    std::fs::remove_file(filler).unwrap();
    storage.attach(&vm, &conformance::spec()).await.unwrap();
    let path = device(vm.id.as_str());
    assert_eq!(read(&path, 6 * MIB, 7), b"between");
    assert_eq!(read(&path, 4 * MIB, 6), b"before");
    assert_eq!(read(&path, 0, 64), conformance::noise(0, 64));
    write(&path, 5 * MIB, b"after").unwrap();
    storage.detach(&vm).await.unwrap();
    storage.attach(&vm, &conformance::spec()).await.unwrap();
    assert_eq!(read(&device(vm.id.as_str()), 5 * MIB, 5), b"after");
    storage.detach(&vm).await.unwrap();
}
