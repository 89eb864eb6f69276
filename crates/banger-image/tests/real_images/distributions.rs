//! Large images through a registry on this host equal what umoci unpacks: one with 60,000 files,
//! and Alpine's own root file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_api::images::Rebuild;
use banger_image::fetch::NoProgress;
use banger_image::images::{Image, ImageStore};
use banger_image::registry::Settings;
use banger_testkit::Registry;

use crate::containers::{World, busybox, run, text};
use crate::disks::alpine as alpine_disk;
use crate::gnu_tar::compare_trees;
use crate::support::{is_root_for, tools};

const FILES: usize = 60_000;
const IN_FOLDER: usize = 50;

fn pull(store: &Path, reference: &str) -> Image {
    let settings = Settings { docker_config: None, ..Settings::default() };
    let store = ImageStore::new(store.to_owned(), tools()).with_registries(settings);
    store.pull(reference, Rebuild::IfOutdated, &NoProgress).unwrap()
}

/// Pushes an image, pulls it into two stores, and compares it with what umoci unpacks.
fn through_a_registry(world: &World, layout: &Path) {
    let registry = Registry::start(&world.at("registry"), "", "");
    registry.push(layout, "app:1", &[]);
    let reference = format!("{}/app:1", registry.host);
    let image = pull(&world.at("one/images"), &reference);
    compare_trees(&world.unpacked(layout), &image.root_disk(), "image");
    let again = pull(&world.at("two/images"), &reference);
    assert_eq!(image.record.fingerprint, again.record.fingerprint);
    run("cmp", &[text(&image.root_disk()), text(&again.root_disk())]);
}

fn many_files(root: &Path) {
    busybox(root);
    for number in 0..FILES {
        let folder = root.join(format!("srv/{}/{}", number / 5000, number / IN_FOLDER));
        if number % IN_FOLDER == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        let path = folder.join(format!("file {number}"));
        match number % 100 {
            0 => symlink(format!("file {}", number + 1), &path).unwrap(),
            1 => fs::write(&path, vec![b'x'; 5000 + number]).unwrap(),
            2 => fs::hard_link(folder.join(format!("file {}", number - 1)), &path).unwrap(),
            _ => fs::write(&path, number.to_string()).unwrap(),
        }
        if number % 100 == 3 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
        }
    }
}

#[test]
fn sixty_thousand_files() {
    if !is_root_for("unpack an image by umoci") {
        return;
    }
    let world = World::in_memory();
    let fewer = |root: &Path| {
        fs::create_dir_all(root.join("srv/0/0")).unwrap();
        fs::write(root.join("srv/.wh.3"), "").unwrap();
        fs::write(root.join("srv/0/0/file 7"), "another").unwrap();
    };
    // Layers of GNU tar: umoci would list all files once more for each.
    let layout = world.at("layout");
    let image = format!("{}:latest", text(&layout));
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    let layers: [&dyn Fn(&Path); 2] = [&many_files, &fewer];
    for (number, fill) in layers.into_iter().enumerate() {
        let (folder, layer) = (world.at(&format!("tree-{number}")), world.at("layer.tar"));
        fs::create_dir(&folder).unwrap();
        fill(&folder);
        run("tar", &["-C", text(&folder), "-cf", text(&layer), "."]);
        run("umoci", &["raw", "add-layer", "--image", &image, text(&layer)]);
    }
    through_a_registry(&world, &layout);
}

/// A mounted file system; it is unmounted when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn alpine() {
    if !is_root_for("mount a disk") {
        return;
    }
    let world = World::new();
    let (raw, there) = (world.at("raw"), world.at("mounted"));
    run("qemu-img", &["convert", "-O", "raw", text(&alpine_disk()), text(&raw)]);
    fs::create_dir(&there).unwrap();
    run("mount", &["-o", "loop,ro", text(&raw), text(&there)]);
    let mounted = Mounted(there.clone());
    let copy = |root: &Path| {
        run("cp", &["-a", &format!("{}/.", text(&there)), text(root)]);
        fs::remove_dir(root.join("lost+found")).unwrap();
        // What an import leaves out.
        let _ = fs::remove_file(root.join("etc/machine-id"));
        for key in fs::read_dir(root.join("etc/ssh")).into_iter().flatten().flatten() {
            if key.file_name().to_string_lossy().starts_with("ssh_host_") {
                fs::remove_file(key.path()).unwrap();
            }
        }
    };
    let layout = world.layered(&[&copy]);
    drop(mounted);
    through_a_registry(&world, &layout);
}
