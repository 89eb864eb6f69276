//! What every storage driver does alike, tried on one VM from nothing to nothing.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use banger_api::vm::Lifetime;
use banger_api::{ApiError, ErrorCode};
use banger_engine::capability::{Effect, VmContext};
use banger_engine::drivers::{Applied, Storage, Undone};
use banger_engine::plan::{BootSet, Chosen, DriverPlan, VmPlan, VmSpec};
use banger_host::layout::Layout;

const MIB: u64 = 1 << 20;
/// Length of the image.
const IMAGE: u64 = 16 * MIB;
/// Length of each disk: more than the file systems of the tests have.
const DISK: u64 = 1 << 30;
/// Where the image has data, a MiB each; the rest is holes.
const DATA: [u64; 2] = [0, 8 * MIB];
/// What a blank disk may take: journal and tables of an ext4.
const BLANK: u64 = 20 * MIB;

/// Reads and writes a root disk that is attached, as a VMM does.
pub trait RootDisk: Sync {
    fn write(&self, vm: &VmPlan, at: u64, bytes: &[u8]);
    fn read(&self, vm: &VmPlan, at: u64, length: usize) -> Vec<u8>;
}

/// What a root disk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// All of it, beginning with the image.
    Whole,
    /// A layer that the guest joins over the image.
    Layer,
}

/// A driver and its surroundings.
pub struct Subject<'a> {
    pub storage: &'a dyn Storage,
    pub disk: &'a dyn RootDisk,
    pub work: &'a dyn Effect,
    pub root: Root,
    pub layout: Layout,
    pub image: PathBuf,
}

impl Subject<'_> {
    async fn create_work(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Applied, ApiError> {
        let made = self.work.apply(VmContext { vm, spec, run: None, interrupt: None }).await;
        made.map(|made| made.applied)
    }

    async fn remove_work(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.work.undo(VmContext { vm, spec: &spec(), run: None, interrupt: None }).await
    }
}

/// Where everything of a test is, beneath one folder.
pub fn layout(folder: &Path, cache: &Path) -> Layout {
    let layout =
        Layout { state: folder.join("state"), data: folder.join("data"), cache: cache.into() };
    fs::create_dir_all(layout.vms()).unwrap();
    fs::create_dir_all(&layout.data).unwrap();
    layout
}

/// Makes an image: data, a hole, data, a hole.
pub fn image(folder: &Path) -> PathBuf {
    let path = folder.join("image.ext4");
    let file = File::create_new(&path).unwrap();
    file.set_len(IMAGE).unwrap();
    for at in DATA {
        file.write_all_at(&noise(at, MIB as usize), at).unwrap();
    }
    file.sync_all().unwrap();
    path
}

/// Bytes that differ from place to place.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

/// What that VM is made of.
pub fn spec() -> VmSpec {
    VmSpec {
        vcpus: 1,
        memory_mib: 512,
        root_bytes: DISK,
        work_bytes: DISK,
        nat: true,
        publish: Vec::new(),
        autostart: false,
        labels: Default::default(),
        sync: Vec::new(),
    }
}

/// A VM with this id.
pub fn plan(id: &str) -> VmPlan {
    let chosen = |name: &str| Chosen { name: name.into(), why: "a test".into() };
    VmPlan {
        id: id.parse().unwrap(),
        name: "disks".parse().unwrap(),
        boot: BootSet {
            image: "0123456789abcdef".parse().unwrap(),
            image_name: "debian".into(),
            image_bytes: IMAGE,
            kernel: "fedcba9876543210".parse().unwrap(),
            opencode: false,
        },
        drivers: DriverPlan {
            vmm: chosen("qemu"),
            storage: chosen("any"),
            network: chosen("user"),
        },
        lifetime: Lifetime::Keep,
        machine_id: "0".repeat(32),
        created_unix_ms: 0,
        program: None,
        agent_login: None,
        build: None,
    }
}

/// Everything that all drivers do alike.
pub async fn all(subject: &Subject<'_>, vm: &VmPlan) {
    let image = fs::read(&subject.image).unwrap();
    nothing_is_undone(subject, vm).await;
    created_once(subject, vm).await;
    attached_written_and_attached_again(subject, vm).await;
    replaced(subject, vm).await;
    removed_once(subject, vm).await;
    too_small(subject, vm).await;
    a_disk_is_missing(subject, vm).await;
    assert_eq!(fs::read(&subject.image).unwrap(), image, "the image is as it was");
}

async fn nothing_is_undone(subject: &Subject<'_>, vm: &VmPlan) {
    let storage = subject.storage;
    assert_eq!(storage.detach(vm).await.unwrap(), Undone::WasAbsent);
    assert_eq!(subject.remove_work(vm).await.unwrap(), Undone::WasAbsent);
    assert_eq!(storage.remove_root(vm).await.unwrap(), Undone::WasAbsent);
    assert_eq!(storage.remove_folder(vm).await.unwrap(), Undone::WasAbsent);
}

async fn created_once(subject: &Subject<'_>, vm: &VmPlan) {
    let storage = subject.storage;
    for expected in [Applied::Created, Applied::AlreadyThere] {
        assert_eq!(storage.create_folder(vm).await.unwrap(), expected);
        assert_eq!(storage.create_root(vm, &spec()).await.unwrap(), expected);
        assert_eq!(subject.create_work(vm, &spec()).await.unwrap(), expected);
    }
    let folder = subject.layout.vm(&vm.id);
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        let meta = entry.unwrap().metadata().unwrap();
        assert!(meta.is_dir() || meta.mode() & 0o777 == 0o600, "{:o}", meta.mode());
    }
    let usage = storage.usage(vm, &spec()).await;
    assert_eq!((usage.root_bytes, usage.work_bytes), (DISK, DISK));
    assert!(usage.root_used_bytes <= BLANK, "the root disk is sparse: {usage:?}");
    assert!(usage.work_used_bytes <= BLANK, "the work disk is sparse: {usage:?}");
    assert!(usage.work_used_bytes > 0, "{usage:?}");
}

async fn attached_written_and_attached_again(subject: &Subject<'_>, vm: &VmPlan) {
    let (storage, disk) = (subject.storage, subject.disk);
    storage.attach(vm, &spec()).await.unwrap();
    assert_eq!(storage.attach(vm, &spec()).await.unwrap(), Applied::AlreadyThere);
    if subject.root == Root::Whole {
        for at in DATA {
            let read = disk.read(vm, at, MIB as usize);
            assert!(read == noise(at, MIB as usize), "the image at {at}");
        }
        for at in [4 * MIB, IMAGE, DISK - MIB] {
            assert!(disk.read(vm, at, MIB as usize) == vec![0; MIB as usize], "zeros at {at}");
        }
    }
    let before = storage.usage(vm, &spec()).await.root_used_bytes;
    // Over data of the image, over a hole of it, where it ends, at the very end.
    let places = [4096, 4 * MIB, IMAGE - MIB / 2, DISK - MIB];
    for at in places {
        disk.write(vm, at, &noise(at + 1, MIB as usize));
    }
    let check = || {
        for at in places {
            let read = disk.read(vm, at, MIB as usize);
            assert!(read == noise(at + 1, MIB as usize), "what was written at {at}");
        }
    };
    check();
    storage.detach(vm).await.unwrap();
    assert_eq!(storage.detach(vm).await.unwrap(), Undone::WasAbsent);
    storage.attach(vm, &spec()).await.unwrap();
    check();
    let after = storage.usage(vm, &spec()).await.root_used_bytes;
    assert!(after > before, "{before} → {after}");
    assert!(after <= before + 12 * MIB, "only what was written takes room: {before} → {after}");
    storage.detach(vm).await.unwrap();
}

/// A reset: the old disk stays until the new one has its place, which has nothing of the old one.
async fn replaced(subject: &Subject<'_>, vm: &VmPlan) {
    let (storage, disk) = (subject.storage, subject.disk);
    let at = [4096, 4 * MIB];
    let is_old =
        || at.map(|at| disk.read(vm, at, MIB as usize) == noise(at + 1, MIB as usize)) == [true; 2];
    assert_eq!(storage.replace_root(vm).await.unwrap(), Applied::AlreadyThere);
    assert_eq!(storage.remove_new_root(vm).await.unwrap(), Undone::WasAbsent);
    for _ in 0..2 {
        assert_eq!(storage.create_new_root(vm, &spec()).await.unwrap(), Applied::Created);
    }
    for expected in [Undone::Removed, Undone::WasAbsent] {
        assert_eq!(storage.remove_new_root(vm).await.unwrap(), expected);
    }
    storage.create_new_root(vm, &spec()).await.unwrap();
    storage.attach(vm, &spec()).await.unwrap();
    assert!(is_old(), "a new disk does not change the old one");
    storage.detach(vm).await.unwrap();
    let lost = subject.image.with_extension("lost");
    fs::rename(&subject.image, &lost).unwrap();
    let error = storage.create_new_root(vm, &spec()).await.unwrap_err();
    fs::rename(&lost, &subject.image).unwrap();
    assert!(error.message.contains(&subject.image.display().to_string()), "{error}");
    storage.create_new_root(vm, &spec()).await.unwrap();
    for expected in [Applied::Created, Applied::AlreadyThere] {
        assert_eq!(storage.replace_root(vm).await.unwrap(), expected);
    }
    storage.attach(vm, &spec()).await.unwrap();
    assert!(!is_old(), "the new disk has nothing of the old one");
    if subject.root == Root::Whole {
        let read = disk.read(vm, 4 * MIB, MIB as usize);
        assert!(read == vec![0; MIB as usize], "zeros as in the image");
    }
    storage.detach(vm).await.unwrap();
    let usage = storage.usage(vm, &spec()).await;
    assert!(usage.root_used_bytes <= BLANK, "{usage:?}");
    // `remove_root` removes the new disk, too.
    storage.create_new_root(vm, &spec()).await.unwrap();
}

async fn removed_once(subject: &Subject<'_>, vm: &VmPlan) {
    let storage = subject.storage;
    for expected in [Undone::Removed, Undone::WasAbsent] {
        assert_eq!(subject.remove_work(vm).await.unwrap(), expected);
        assert_eq!(storage.remove_root(vm).await.unwrap(), expected);
    }
    let folder = subject.layout.vm(&vm.id);
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
    let disks = left.iter().filter(|entry| entry.file_type().unwrap().is_file());
    assert_eq!(disks.count(), 0, "{left:?}");
    for expected in [Undone::Removed, Undone::WasAbsent] {
        assert_eq!(storage.remove_folder(vm).await.unwrap(), expected);
    }
    assert!(!folder.exists());
    let usage = storage.usage(vm, &spec()).await;
    assert_eq!((usage.root_used_bytes, usage.work_used_bytes), (0, 0));
}

async fn too_small(subject: &Subject<'_>, vm: &VmPlan) {
    // A layer holds only what the guest changes.
    if subject.root == Root::Layer {
        return;
    }
    let storage = subject.storage;
    let small = VmSpec { root_bytes: IMAGE - 4096, ..spec() };
    storage.create_folder(vm).await.unwrap();
    let error = storage.create_root(vm, &small).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(error.message.contains("`debian`"), "{error}");
    assert!(!error.hints.is_empty());
    assert_eq!(storage.remove_root(vm).await.unwrap(), Undone::WasAbsent);
    let fits = VmSpec { root_bytes: IMAGE, ..spec() };
    assert_eq!(storage.create_root(vm, &fits).await.unwrap(), Applied::Created);
    subject.create_work(vm, &fits).await.unwrap();
    storage.attach(vm, &fits).await.unwrap();
    assert!(subject.disk.read(vm, 0, MIB as usize) == noise(0, MIB as usize));
    storage.detach(vm).await.unwrap();
    storage.remove_folder(vm).await.unwrap();
}

async fn a_disk_is_missing(subject: &Subject<'_>, vm: &VmPlan) {
    let storage = subject.storage;
    storage.create_folder(vm).await.unwrap();
    storage.create_root(vm, &spec()).await.unwrap();
    let error = storage.attach(vm, &spec()).await.unwrap_err();
    assert!(error.message.contains("work.ext4"), "{error}");
    storage.detach(vm).await.unwrap();
    subject.create_work(vm, &spec()).await.unwrap();
    storage.remove_root(vm).await.unwrap();
    let error = storage.attach(vm, &spec()).await.unwrap_err();
    assert!(error.message.contains("root."), "{error}");
    assert_eq!(storage.detach(vm).await.unwrap(), Undone::WasAbsent);
    storage.remove_folder(vm).await.unwrap();
}

/// A full file system is reported as full, and no incomplete object is left. The cache of blank
/// disks must be on another file system, or disks might share blocks with it.
pub async fn full(subject: &Subject<'_>, vm: &VmPlan, fill: impl AsyncFn() -> PathBuf) {
    let storage = subject.storage;
    storage.create_folder(vm).await.unwrap();
    let filler = fill().await;
    let error = subject.create_work(vm, &spec()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSpace, "{error}: {:?}", error.causes);
    assert!(!error.hints.is_empty());
    let folder = subject.layout.vm(&vm.id);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    let files: Vec<_> = files.filter(|entry| entry.path().is_file()).collect();
    assert!(files.is_empty(), "{files:?}");
    fs::remove_file(filler).unwrap();
    assert_eq!(subject.create_work(vm, &spec()).await.unwrap(), Applied::Created);
    subject.remove_work(vm).await.unwrap();
    storage.remove_folder(vm).await.unwrap();
}
