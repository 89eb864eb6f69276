//! Kernels that images contain: Alpine's own from its real disk.

use std::fs;
use std::path::Path;

use banger_image::fetch::{FetchError, NoProgress};
use banger_image::kernels::{ImageDisk, KernelError, KernelStore};

use crate::disks::alpine;
use crate::sources::import;
use crate::support::{Watch, ask, fsck, half_made, run, tools, with_causes};

fn of<'a>(id: &'a str, disk: &'a Path) -> ImageDisk<'a> {
    ImageDisk { id, name: "alpine", disk }
}

#[test]
fn the_kernel_of_a_real_alpine_is_unpacked_once() {
    let temp = tempfile::tempdir().unwrap();
    let image = import(temp.path(), &alpine(), &Watch::default()).unwrap();
    let (id, disk) = (image.record.id.as_str(), image.root_disk());
    let root = temp.path().join("kernels");
    let store = KernelStore::new(root.clone(), tools());
    for stage in ["read the image's kernel", "unpack the kernel"] {
        let stopped = store.of_image(of(id, &disk), &Watch::cancelling_at(stage)).unwrap_err();
        let cancelled = matches!(stopped, KernelError::Fetch(FetchError::Cancelled));
        assert!(cancelled, "{stage}: {stopped:?}");
    }
    assert!(half_made(&root).is_empty());

    let kernel = store.of_image(of(id, &disk), &NoProgress).unwrap();
    kernel.verify(&NoProgress).unwrap();
    let name = format!("image-{id}");
    assert_eq!((&kernel.names, &kernel.record.source), (&vec![name], &format!("image {id}")));
    // Alpine's file name is `vmlinuz-virt`.
    let release = &kernel.record.release;
    assert!(release.ends_with("-virt"), "{release}");
    let elf = fs::read(kernel.vmlinux()).unwrap();
    assert!(elf.starts_with(b"\x7fELF"));
    let order = kernel.boot_order().unwrap();
    for module in ["virtio_blk.ko", "vmw_vsock_virtio_transport.ko", "ext4.ko", "overlay.ko"] {
        assert!(order.iter().any(|known| known == module), "{module} is not in {order:?}");
    }
    // Built in, so that it is not loaded.
    assert!(!order.iter().any(|known| known == "virtio_mmio.ko"), "{order:?}");
    fsck(&kernel.modules_disk());
    let folder = ask(&kernel.modules_disk(), &format!("ls -p /{release}"));
    assert!(folder.contains("/modules.dep.bin/"), "{folder}");
    assert!(!folder.contains("/vmlinuz/"), "{folder}");
    // Unpacked: Alpine's modules are compressed.
    let module = format!("/{release}/kernel/fs/ext4/ext4.ko");
    let stat = ask(&kernel.modules_disk(), &format!("stat {module}"));
    assert!(stat.contains("Type: regular"), "{stat}");

    let again = Watch::default();
    assert_eq!(store.of_image(of(id, &disk), &again).unwrap().record, kernel.record);
    assert!(again.stages.lock().unwrap().is_empty());
    assert_eq!(store.list().objects.len(), 1);

    lacking(&store, &disk, release);
}

/// Images whose kernel cannot be used, each with the reason.
fn lacking(store: &KernelStore, disk: &Path, release: &str) {
    let changed = |commands: &str| {
        let copy = disk.with_file_name("changed");
        run("cp", &["--sparse=always", disk.to_str().unwrap(), copy.to_str().unwrap()], "");
        run("debugfs", &["-w", "-f", "-", copy.to_str().unwrap()], commands);
        let error = store.of_image(of("0000000000000000", &copy), &NoProgress).unwrap_err();
        fs::remove_file(&copy).unwrap();
        error
    };
    let modules = format!("/lib/modules/{release}/kernel");
    let error = changed(&format!("rm {modules}/drivers/block/virtio_blk.ko.gz\n"));
    let text = with_causes(&error);
    assert!(text.starts_with("the kernel of the image `alpine` cannot be used"), "{text}");
    assert!(text.ends_with("the kernel has no `virtio_blk`"), "{text}");
    let error = changed("rm /boot/vmlinuz-virt\n");
    assert!(matches!(error, KernelError::NoKernelInImage { .. }), "{error:?}");
    // A file that a damaged disk or a hostile guest left there.
    let error = changed("set_inode_field /boot/vmlinuz-virt size 1000000000000\n");
    assert!(matches!(error, KernelError::OfImage { .. }), "{error:?}");
    assert!(half_made(&disk.ancestors().nth(3).unwrap().join("kernels")).is_empty());
}
