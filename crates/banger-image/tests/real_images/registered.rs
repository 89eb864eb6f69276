//! Files that become images where they are, and their promotion.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use banger_api::images::TakenName;
use banger_image::images::{GivenKernel, Image, ImageError, ImageStore, Registration};
use banger_image::kernels::{KernelFiles, KernelStore};

use crate::disks::alpine;
use crate::listing::in_image;
use crate::sources::{fill, import};
use crate::support::{Watch, half_made, run, tools, with_causes};

fn store(folder: &Path) -> ImageStore {
    ImageStore::new(folder.join("images"), tools())
}

fn register(folder: &Path, path: &Path) -> Result<Image, ImageError> {
    register_with(folder, path, None)
}

fn kernels(folder: &Path) -> KernelStore {
    KernelStore::new(folder.join("kernels"), tools())
}

fn register_with(
    folder: &Path,
    path: &Path,
    kernel: Option<GivenKernel<'_>>,
) -> Result<Image, ImageError> {
    let (name, taken, kernels) = ("lab", TakenName::Replace, &kernels(folder));
    let wanted = Registration { path, name, taken, kernel, kernels };
    let made = store(folder).register(&wanted, &Watch::default());
    for store in ["images", "kernels"] {
        assert!(half_made(&folder.join(store)).is_empty(), "{made:?}");
    }
    made
}

fn ext4(folder: &Path) -> PathBuf {
    let (source, path) = (folder.join("source"), folder.join("lab.ext4"));
    fill(&source);
    let plain = ["-q", "-F", "-t", "ext4", "-b", "4096", "-d"];
    let args = [source.to_str().unwrap(), path.to_str().unwrap(), "120M"];
    run("mke2fs", &[&plain[..], &args].concat(), "");
    path
}

#[test]
fn a_registered_file_stays_and_is_promoted() {
    let temp = tempfile::tempdir().unwrap();
    let path = ext4(temp.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mtime_nsec());
    let image = register(temp.path(), &path).unwrap();
    assert_eq!(image.root_disk(), path);
    assert_eq!(image.record.system.as_deref(), Some("Source 1"));
    assert_eq!(image.record.virtual_bytes, 120 << 20);
    image.check().unwrap();
    image.verify().unwrap();
    assert!(fs::metadata(&image.folder).unwrap().is_dir());
    let again = register(temp.path(), &path).unwrap();
    assert_eq!(again.record.id, image.record.id);
    let wanted = in_image(&path);

    // A crash between the two renames of a promotion: the file is there, and not named.
    fs::write(image.folder.join("root.ext4"), "half").unwrap();
    assert_eq!(store(temp.path()).resolve("lab").unwrap().root_disk(), path);
    let promoted = store(temp.path()).promote("lab", &Watch::default()).unwrap();
    assert_eq!((&promoted.record.id, &promoted.names), (&image.record.id, &image.names));
    assert_eq!(promoted.root_disk(), image.folder.join("root.ext4"));
    promoted.verify().unwrap();
    assert!(in_image(&promoted.root_disk()) == wanted, "the content has changed");
    assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mtime_nsec()), before);
    fs::remove_file(&path).unwrap();
    promoted.check().unwrap();
    let once_more = store(temp.path()).promote("lab", &Watch::default()).unwrap();
    assert_eq!(once_more.record, promoted.record);
}

#[test]
fn a_registered_image_has_the_kernel_that_was_given() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let path = at("alpine.ext4");
    fs::rename(import(temp.path(), &alpine(), &Watch::default()).unwrap().root_disk(), &path)
        .unwrap();
    fs::remove_dir_all(at("images")).unwrap();

    // A kernel that cannot be used: there is no image, and no kernel.
    let other = ext4(temp.path());
    let error = register_with(temp.path(), &other, Some(GivenKernel::Contained)).unwrap_err();
    assert!(matches!(error, ImageError::Kernel(_)), "{error:?}");
    fs::write(at("text"), "no kernel").unwrap();
    let text = KernelFiles { file: &at("text"), modules: None };
    let error = register_with(temp.path(), &path, Some(GivenKernel::Files(text))).unwrap_err();
    assert!(with_causes(&error).contains("text"), "{error}");
    assert!(store(temp.path()).resolve("lab").is_err());
    assert!(kernels(temp.path()).list().objects.is_empty());

    let plain = register(temp.path(), &path).unwrap();
    assert!(!plain.record.own_kernel);
    let image = register_with(temp.path(), &path, Some(GivenKernel::Contained)).unwrap();
    assert_eq!(image.record.id, plain.record.id);
    assert!(image.record.own_kernel);
    let own = format!("image-{}", image.record.id);
    let contained = kernels(temp.path()).resolve(&own).unwrap();
    assert!(contained.record.release.ends_with("-virt"), "{}", contained.record.release);

    // The same kernel from files is the same one.
    for (what, target) in
        [("dump /boot/vmlinuz-virt", at("vmlinuz")), ("rdump /lib/modules", at("."))]
    {
        let request = format!("{what} {}", target.display());
        run("debugfs", &["-R", &request, path.to_str().unwrap()], "");
    }
    let files = KernelFiles { file: &at("vmlinuz"), modules: Some(&at("modules")) };
    let image = register_with(temp.path(), &path, Some(GivenKernel::Files(files))).unwrap();
    let given = kernels(temp.path()).resolve(&own).unwrap();
    assert_eq!(given.record.release, contained.record.release);
    // A promotion keeps it.
    let promoted = store(temp.path()).promote("lab", &Watch::default()).unwrap();
    assert!(image.record.own_kernel && promoted.record.own_kernel);
}

#[test]
fn a_file_that_is_missing_or_changed_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let path = ext4(temp.path());
    let image = register(temp.path(), &path).unwrap();
    // A copy of it, with other times, is as good.
    let kept = temp.path().join("kept");
    fs::copy(&path, &kept).unwrap();
    fs::rename(&kept, &path).unwrap();
    image.check().unwrap();
    let bytes = fs::read(&path).unwrap();
    File::options().write(true).open(&path).unwrap().write_all_at(b"x", 100 << 20).unwrap();
    let shown = path.display().to_string();
    let changed = image.check().unwrap_err().to_string();
    assert!(changed.contains(&shown) && changed.contains("has changed"), "{changed}");
    let error = store(temp.path()).promote("lab", &Watch::default()).unwrap_err();
    assert!(with_causes(&error).contains("has changed"), "{error}");
    assert!(half_made(&temp.path().join("images")).is_empty());
    fs::remove_file(&path).unwrap();
    let missing = image.check().unwrap_err().to_string();
    assert!(missing.contains(&shown) && missing.contains("No such file"), "{missing}");
    let error = store(temp.path()).promote("lab", &Watch::default()).unwrap_err();
    assert!(error.to_string().contains(&shown), "{error}");
    fs::write(&path, bytes).unwrap();
    image.check().unwrap();
    let deleted = store(temp.path()).delete("lab", &[]).unwrap();
    assert_eq!(deleted.id, image.record.id);
    assert!(path.exists(), "the user's file was deleted");
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let temp = tempfile::tempdir().unwrap();
    let path = ext4(temp.path());
    let at = |name: &str| temp.path().join(name);
    fs::write(at("text"), "what").unwrap();
    fs::write(at("empty"), "").unwrap();
    run(
        "tar",
        &["-cf", at("tar").to_str().unwrap(), "-C", at("source").to_str().unwrap(), "."],
        "",
    );
    let (plain, packed) = (path.to_str().unwrap(), at("packed"));
    run("bash", &["-c", "gzip -1 <\"$0\" >\"$1\"", plain, packed.to_str().unwrap()], "");
    fs::copy(&path, at("dirty")).unwrap();
    // `s_state` of a file system that is mounted.
    let dirty = File::options().write(true).open(at("dirty")).unwrap();
    dirty.write_all_at(&[0, 0], 1024 + 0x3a).unwrap();
    let empty = at("nothing");
    run("mke2fs", &["-q", "-F", "-t", "ext4", empty.to_str().unwrap(), "20M"], "");
    for (name, why) in [
        ("text", "no ext4"),
        ("empty", "no ext4"),
        ("tar", "no ext4"),
        ("packed", "no ext4"),
        ("source", "not a regular file"),
        ("dirty", "checksum"),
        ("nothing", "no root file system"),
        ("absent", "No such file"),
    ] {
        let error = with_causes(&register(temp.path(), &at(name)).unwrap_err());
        assert!(error.contains(why) && error.contains(name), "{name}: {error}");
        assert!(store(temp.path()).resolve("lab").is_err(), "{name}");
    }
}
