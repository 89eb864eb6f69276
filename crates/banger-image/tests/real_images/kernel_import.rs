//! The kernel import, from the package that a pull downloads.

use std::fs;
use std::path::Path;
use std::process::Command;

use banger_api::images::TakenName;
use banger_image::fetch::{NoProgress, Tools};
use banger_image::kernels::{Catalogs, KernelError, KernelFiles, KernelStore};
use banger_image::trust::TrustSettings;
use banger_testkit::{Publisher, SmallDisk};

use crate::full_disk::{each_stage, of_kernel};
use crate::kernel::shim;
use crate::support::{Watch, half_made, tools};

fn file(file: &Path) -> KernelFiles<'_> {
    KernelFiles { file, modules: None }
}

#[test]
fn an_imported_kernel_equals_the_pulled_one() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let (root, deb) = (at("kernels"), at("kernel.deb"));
    // Keeps the package that a pull unpacks.
    let keep = format!("for deb; do case $deb in *.deb) cp \"$deb\" {}; esac; done", deb.display());
    shim(&at("bin"), "dpkg-deb", &keep);
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let pulled = KernelStore::new(root.clone(), Tools::new(&path));
    let pulled = pulled.pull("debian-cloud", &NoProgress).unwrap().record;

    let store = KernelStore::new(root.clone(), tools());
    let import = |files: KernelFiles<'_>, name: &str| {
        store.import(files, name, TakenName::Refuse, &NoProgress)
    };
    let package = import(file(&deb), "package").unwrap().record;
    assert_eq!(package.files, pulled.files);
    // The store keeps the record of equal files.
    assert_eq!(package, pulled);

    let tree = at("tree");
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree).status().unwrap();
    assert!(unpacked.success());
    let vmlinuz = tree.join(format!("boot/vmlinuz-{}", pulled.release));
    let modules = Some(tree.as_path());
    let plain = import(KernelFiles { file: &vmlinuz, modules }, "plain").unwrap();
    assert_eq!(plain.record, pulled);
    plain.verify(&NoProgress).unwrap();

    of_a_catalog(&deb, &at("catalog"), &package.id);
    on_a_full_disk(&deb, &at("small"));
    wrong(&store, &deb, &vmlinuz, temp.path());
    let taken = import(file(&deb), "plain").unwrap();
    assert_eq!(taken.record.id, pulled.id, "the name has this kernel already");
    let cancelled = Watch::cancelling_at("write the modules disk");
    let stopped = store.import(file(&deb), "later", TakenName::Refuse, &cancelled);
    assert!(stopped.is_err() && store.resolve("later").is_err());
    assert!(half_made(&root).is_empty());
    assert_eq!(store.list().objects.len(), 1);
}

/// The package as the file of a signed catalog.
fn of_a_catalog(deb: &Path, folder: &Path, id: &str) {
    let publisher = Publisher::new();
    fs::copy(deb, publisher.served("kernel.deb")).unwrap();
    publisher.publish("kernels", "acme", "kernel.deb");
    let trust = TrustSettings {
        catalogs: vec![publisher.catalog()],
        keys: vec![publisher.public()],
        ..TrustSettings::default()
    };
    let catalogs = Catalogs { trust, ..Catalogs::default() };
    let store = KernelStore::new(folder.join("kernels"), tools()).with_catalogs(catalogs);
    let pulled = store.pull("acme", &NoProgress).unwrap().record;
    assert_eq!(pulled.id, id);
    assert!(pulled.source.contains("catalog.json"), "{}", pulled.source);
    // It is here: the server is not asked again.
    fs::remove_file(publisher.served("kernel.deb")).unwrap();
    assert_eq!(store.pull("acme", &NoProgress).unwrap().record, pulled);
    fs::write(publisher.catalog(), "{}").unwrap();
    let error = store.pull("acme", &NoProgress).unwrap_err().to_string();
    assert!(error.contains("catalog.json"), "{error}");
}

/// An import on a disk that is too small, or becomes full at one of its stages.
fn on_a_full_disk(deb: &Path, folder: &Path) {
    let Some(disk) = SmallDisk::mount(folder, 64) else { return };
    let kernels = folder.join("data/kernels");
    let store = KernelStore::new(kernels.clone(), tools());
    let stages = ["unpack the package", "unpack the kernel", "write the modules disk"];
    each_stage(&disk, &kernels, &stages, |progress| {
        assert!(store.list().objects.is_empty());
        let imported = store.import(file(deb), "small", TakenName::Refuse, progress);
        imported.map_err(|error| of_kernel(&error))
    });
}

/// Files that are refused, each with its reason.
fn wrong(store: &KernelStore, deb: &Path, vmlinuz: &Path, folder: &Path) {
    let refused = |files: KernelFiles<'_>| {
        let error = store.import(files, "wrong", TakenName::Refuse, &NoProgress).unwrap_err();
        assert!(store.resolve("wrong").is_err());
        error
    };
    // Debian's cloud kernel has these drivers as modules.
    let error = refused(file(vmlinuz));
    let KernelError::Modules { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the kernel has no `virtio_mmio`");
    let error = refused(KernelFiles { file: vmlinuz, modules: Some(&folder.join("bin")) });
    assert!(matches!(error, KernelError::OtherModules { .. }), "{error:?}");
    let error = refused(KernelFiles { file: deb, modules: Some(folder) });
    assert!(matches!(error, KernelError::SecondModules { .. }), "{error:?}");
    for (name, content) in [("text", &b"no kernel"[..]), ("empty", b"")] {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        let error = refused(file(&path));
        assert!(matches!(&error, KernelError::BadKernel { path: told, .. } if *told == path));
    }
    let error = refused(file(&folder.join("missing")));
    assert!(matches!(error, KernelError::Fetch(_)), "{error:?}");
    // Half of a package, and half of a kernel.
    for (whole, name) in [(deb, "half.deb"), (vmlinuz, "half-kernel")] {
        let content = fs::read(whole).unwrap();
        let path = folder.join(name);
        fs::write(&path, &content[..content.len() / 2]).unwrap();
        refused(file(&path));
    }
}
