//! A disk that is too small refuses an operation before it begins; one that becomes full leaves
//! nothing.

use std::path::Path;
use std::sync::Mutex;

use banger_api::build::BuildInputs;
use banger_api::images::{Rebuild, TakenName};
use banger_image::fetch::{FetchError, NoProgress, Progress};
use banger_image::images::{Captured, ImageError, ImageStore};
use banger_image::kernels::{KernelError, KernelFiles, KernelStore};
use banger_image::registry::{RegistryError, Settings};
use banger_testkit::{Registry, SmallDisk};

use crate::containers::{World, busybox, run, text};
use crate::support::{half_made, is_root_for, tools, with_causes};

/// Fills the disk when a stage begins.
struct FillAt<'a> {
    disk: &'a SmallDisk,
    stage: &'static str,
    stages: Mutex<Vec<String>>,
}

impl Progress for FillAt<'_> {
    fn stage(&self, name: &str) {
        self.stages.lock().unwrap().push(name.to_owned());
        if name.starts_with(self.stage) {
            self.disk.leave(0);
        }
    }
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

const ROOMY: u64 = 2 << 30;
/// Less than any operation needs.
const SCANT: u64 = 30 << 20;

/// Works on a full disk, and then with room.
pub fn each_stage<T>(
    disk: &SmallDisk,
    store: &Path,
    stages: &[&'static str],
    work: impl Fn(&dyn Progress) -> Result<T, (String, bool)>,
) {
    disk.leave(SCANT);
    let (error, _) = work(&NoProgress).map(|_| ()).unwrap_err();
    assert!(error.contains("not enough space for `"), "{error}");
    assert!(half_made(store).is_empty());
    for stage in stages {
        disk.leave(ROOMY);
        let fill = FillAt { disk, stage, stages: Mutex::default() };
        let (error, is_full) = work(&fill).map(|_| ()).unwrap_err();
        assert!(is_full && error.contains("the disk is full: cannot"), "at `{stage}`: {error}");
        assert!(half_made(store).is_empty(), "at `{stage}`");
    }
    disk.leave(ROOMY);
    assert!(work(&NoProgress).is_ok());
}

fn is_full(error: &FetchError) -> bool {
    matches!(error, FetchError::DiskFull { .. })
}

fn of_image(error: &ImageError) -> (String, bool) {
    let full = match error {
        ImageError::Fetch(error) | ImageError::Registry(RegistryError::Fetch(error)) => {
            is_full(error)
        }
        _ => false,
    };
    (with_causes(error), full)
}

pub fn of_kernel(error: &KernelError) -> (String, bool) {
    let full = matches!(error, KernelError::Fetch(error) if is_full(error));
    (with_causes(error), full)
}

#[test]
fn pulls_and_imports() {
    if !is_root_for("unpack an image by umoci") {
        return;
    }
    let world = World::new();
    let layout = world.layered(&[&busybox]);
    let registry = Registry::start(&world.at("registry"), "", "");
    registry.push(&layout, "app:1", &[]);
    let Some(disk) = SmallDisk::mount(&world.at("small"), 64) else { return };
    let images = world.at("small/data/images");
    let settings = Settings { docker_config: None, ..Settings::default() };
    let store = ImageStore::new(images.clone(), tools()).with_registries(settings);
    let reference = format!("{}/app:1", registry.host);
    each_stage(
        &disk,
        &images,
        &["download the layers", "write the root disk", "compute the fingerprint"],
        |progress| {
            assert!(store.list().objects.is_empty());
            let pulled = store.pull(&reference, Rebuild::IfOutdated, progress);
            let layers = store.layers().files().unwrap();
            let parts = layers.iter().filter(|file| file.name.ends_with(".part"));
            assert_eq!(parts.count(), 0, "{layers:?}");
            pulled.map_err(|error| of_image(&error))
        },
    );
    // Each blob was sent once when the disk became full during its download, and once later: it
    // was in the cache when the disk became full at a later stage.
    let (mut blobs, all) = (registry.blobs(), registry.blobs().len());
    blobs.sort();
    blobs.dedup();
    assert!(blobs.len() == 2 && all <= 4, "{all}: {blobs:?}");
    store.delete(&reference, &[]).unwrap();
    each_stage(&disk, &images, &["write the root disk", "compute the fingerprint"], |progress| {
        assert!(store.list().objects.is_empty());
        let imported = store.import(&layout, "a file", "x", TakenName::Refuse, progress);
        imported.map_err(|error| of_image(&error))
    });
}

#[test]
fn captured_disks() {
    let temp = tempfile::tempdir().unwrap();
    let Some(small) = SmallDisk::mount(&temp.path().join("small"), 64) else { return };
    let (folder, disk) = (temp.path().join("root"), temp.path().join("root.ext4"));
    std::fs::create_dir(&folder).unwrap();
    busybox(&folder);
    run("mke2fs", &["-q", "-t", "ext4", "-d", text(&folder), text(&disk), "64M"]);
    let images = temp.path().join("small/data/images");
    let store = ImageStore::new(images.clone(), tools());
    let inputs: BuildInputs = serde_json::from_value(serde_json::json!({
        "base": "0123456789abcdef", "base_name": "x", "kernel": "0123456789abcdef",
        "root_bytes": 1 << 26, "packages": [], "copies": [],
    }))
    .unwrap();
    let captured = Captured {
        name: "x",
        taken: TakenName::Refuse,
        disk: &disk,
        inputs: &inputs,
        installed: &[],
        own_kernel: false,
    };
    each_stage(&small, &images, &["compute the fingerprint"], |progress| {
        store.capture(captured, progress).map_err(|error| of_image(&error))
    });
}

#[test]
fn kernels() {
    let temp = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&temp.path().join("small"), 64) else { return };
    let (file, kernels) = (temp.path().join("vmlinuz"), temp.path().join("small/data/kernels"));
    std::fs::write(&file, "no kernel").unwrap();
    let store = KernelStore::new(kernels.clone(), tools());
    disk.leave(SCANT);
    let files = KernelFiles { file: &file, modules: None };
    for failed in [
        store.import(files, "x", TakenName::Refuse, &NoProgress),
        store.pull("debian-cloud", &NoProgress),
    ] {
        let (error, _) = of_kernel(&failed.unwrap_err());
        assert!(error.contains("not enough space for `"), "{error}");
        assert!(half_made(&kernels).is_empty());
    }
}
