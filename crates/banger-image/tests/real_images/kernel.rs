//! The kernel pull.

use std::fs;
use std::path::Path;
use std::process::Command;

use banger_image::fetch::{FetchError, NoProgress};
use banger_image::initramfs::Initramfs;
use banger_image::kernels::{KernelError, KernelStore, META_PACKAGE};

use crate::support::{Watch, ask, cache, fsck, half_made, tools};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn debians_kernel_is_pulled_once_checked_and_repaired() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("kernels");
    let store = KernelStore::new(root.clone(), tools());
    let watches = [Watch::default(), Watch::default()];
    let pulled: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = watches
            .iter()
            .map(|watch| scope.spawn(|| store.pull("debian-cloud", watch).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let kernel = &pulled[0];
    assert_eq!(kernel.record, pulled[1].record);
    let downloads: usize = watches.iter().map(|watch| watch.saw_stage("download")).sum();
    assert_eq!(downloads, 1, "two who ask at the same time share one download");
    assert_eq!(names(&root), [kernel.record.id.as_str(), "names", "staging"]);
    assert!(half_made(&root).is_empty());

    assert!(fs::read(kernel.vmlinux()).unwrap().starts_with(b"\x7fELF"));
    fsck(&kernel.modules_disk());
    let release = &kernel.record.release;
    let indexes = ask(&kernel.modules_disk(), &format!("ls -p /{release}"));
    for name in ["modules.dep.bin", "modules.alias.bin", "modules.builtin.bin", "kernel"] {
        assert!(indexes.contains(&format!("/{name}/")), "{name} is not on the disk");
    }
    let module =
        ask(&kernel.modules_disk(), &format!("stat /{release}/kernel/net/netfilter/nft_compat.ko"));
    assert!(module.contains("Type: regular"), "{module}");
    let order = kernel.boot_order().unwrap();
    let place = |name: &str| order.iter().position(|module| module == name).unwrap();
    assert!(place("virtio_ring.ko") < place("virtio.ko"));
    assert!(place("virtio.ko") < place("virtio_blk.ko"));
    assert!(place("vsock.ko") < place("vmw_vsock_virtio_transport.ko"));
    place("overlay.ko");
    kernel.check().unwrap();
    kernel.verify(&NoProgress).unwrap();

    let again = Watch::default();
    assert_eq!(store.pull("debian-cloud", &again).unwrap().record, kernel.record);
    assert_eq!(again.saw_stage("download"), 0, "the newest one is here already");

    damaged_and_repaired(&store, kernel);
    let freed = store.delete("debian-cloud", &[]).unwrap().freed_bytes;
    assert!(freed > 50 << 20);
    assert_eq!(names(&root), ["names", "staging"]);
}

fn damaged_and_repaired(store: &KernelStore, kernel: &banger_image::kernels::Kernel) {
    let path = kernel.vmlinux();
    let whole = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(whole / 2).unwrap();
    let error = kernel.check().unwrap_err();
    assert!(matches!(error, FetchError::Damaged { .. }));
    assert!(error.to_string().contains("vmlinux"), "{error}");
    store.pull("debian-cloud", &NoProgress).unwrap().verify(&NoProgress).unwrap();

    // A change that keeps the size is what the full check is for.
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(kernel.modules_disk()).unwrap();
    file.write_all_at(b"changed", 8 << 20).unwrap();
    kernel.check().unwrap();
    assert!(matches!(kernel.verify(&NoProgress), Err(FetchError::Damaged { .. })));
}

#[test]
fn the_initramfs_is_an_archive_that_others_read() {
    let (folder, _lock) = cache();
    let temp = tempfile::tempdir().unwrap();
    let store = KernelStore::new(folder.join("data/kernels"), tools());
    let kernel = store.pull("debian-cloud", &NoProgress).unwrap();
    let agent = std::env::current_exe().unwrap();
    let initramfs = Initramfs::new(temp.path().join("cache"));
    let path = initramfs.get(&kernel, &agent).unwrap();
    let archive = fs::read(&path).unwrap();
    let modules: u64 = kernel
        .boot_order()
        .unwrap()
        .iter()
        .map(|name| fs::metadata(kernel.boot_modules().join(name)).unwrap().len())
        .sum();
    let least = fs::metadata(&agent).unwrap().len() + modules;
    assert!((least..least + 16384).contains(&(archive.len() as u64)));
    assert_eq!(archive.len() % 4, 0);
    assert_eq!(initramfs.prune(std::slice::from_ref(&kernel.record.id)).unwrap(), 0);
    assert!(initramfs.prune(&[]).unwrap() > least / 2);
}

#[test]
fn a_failed_pull_reports_the_cause_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("kernels");
    let store = KernelStore::new(root.clone(), tools());
    let error = store.pull("windows", &NoProgress).unwrap_err();
    assert!(matches!(error, KernelError::UnknownRecipe { .. }), "{error}");
    for stage in ["find", "download", "unpack the kernel", "write"] {
        let error = store.pull("debian-cloud", &Watch::cancelling_at(stage)).unwrap_err();
        let cancelled = matches!(error, KernelError::Fetch(FetchError::Cancelled));
        assert!(cancelled, "cancelled at `{stage}`: {error:?}");
        assert!(half_made(&root).is_empty(), "cancelled at `{stage}`");
    }
    assert!(store.list().objects.is_empty());
}

/// A program that hands over to the real one, but does something else first.
pub fn shim(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(folder).unwrap();
    let real = tools().find(name).unwrap();
    let text = format!("#!/bin/sh\n{script}\nexec {} \"$@\"\n", real.display());
    fs::write(folder.join(name), text).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_damaged_package_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let bin = temp.path().join("bin");
    // As if the download had been cut off after apt had checked it.
    shim(
        &bin,
        "dpkg-deb",
        "for deb; do case $deb in *.deb) truncate -s 9000000 \"$deb\"; esac; done",
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let root = temp.path().join("kernels");
    let store = KernelStore::new(root.clone(), banger_image::fetch::Tools::new(&path));
    let error = store.pull("debian-cloud", &NoProgress).unwrap_err();
    assert!(error.to_string().contains("dpkg-deb"), "{error}");
    assert!(half_made(&root).is_empty());
}

#[test]
fn lists_that_lack_the_package_are_refreshed_beside_the_hosts() {
    let temp = tempfile::tempdir().unwrap();
    let bin = temp.path().join("bin");
    // The host's own lists have never heard of the package; ours, when fetched, have.
    shim(&bin, "apt-cache", "case \"$*\" in *Dir::State::lists*) ;; *) exit 100; esac");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let store =
        KernelStore::new(temp.path().join("kernels"), banger_image::fetch::Tools::new(&path));
    let before = hosts_lists();
    let watch = Watch::default();
    let kernel = store.pull("debian-cloud", &watch).unwrap();
    assert_eq!(watch.saw_stage("refresh package lists"), 1);
    assert!(kernel.record.source.contains("linux-image-"), "{}", kernel.record.source);
    assert_eq!(hosts_lists(), before, "the host's lists are not ours to change");
    assert!(META_PACKAGE.starts_with("linux-image-"));
}

fn hosts_lists() -> String {
    let listed = Command::new("ls").args(["-l", "--time-style=+%s", "/var/lib/apt/lists"]).output();
    String::from_utf8(listed.unwrap().stdout).unwrap()
}
