//! Images that umoci, buildah and skopeo write become what umoci unpacks.
//!
//! umoci writes layers as root with real owners, whiteouts, devices and attributes; buildah and
//! skopeo write archives as podman and docker save them, and layers of every compression.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use banger_api::images::{ImageConfig, TakenName};
use banger_image::fetch::NoProgress;
use banger_image::images::{Image, ImageError, ImageStore};

use crate::gnu_tar::{compare_trees, fill};
use crate::support::{self, half_made, is_root_for, tools, with_causes};

pub fn run(program: &str, args: &[&str]) -> String {
    support::run(program, args, "").trim().to_owned()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Adds a static busybox to a root file system.
pub fn busybox(root: &Path) {
    fs::create_dir(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
}

pub struct World {
    folder: tempfile::TempDir,
    store: ImageStore,
}

impl World {
    pub fn new() -> Self {
        Self::at_folder(tempfile::tempdir().unwrap())
    }

    /// In memory, if there is a place for it: ext4 makes files slowly where others were deleted in
    /// the last seconds, as tests do.
    pub fn in_memory() -> Self {
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::at_folder(place.unwrap())
    }

    fn at_folder(folder: tempfile::TempDir) -> Self {
        let store = ImageStore::new(folder.path().join("images"), tools());
        Self { folder, store }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn import(&self, path: &Path) -> Result<Image, ImageError> {
        self.store.import(path, "a file", "x", TakenName::Replace, &NoProgress)
    }

    /// An image of umoci with a layer for each change of its files.
    pub fn layered(&self, changes: &[&dyn Fn(&Path)]) -> PathBuf {
        let (layout, bundle) = (self.at("layout"), self.at("bundle"));
        let image = format!("{}:latest", text(&layout));
        run("umoci", &["init", "--layout", text(&layout)]);
        run("umoci", &["new", "--image", &image]);
        run("umoci", &["unpack", "--image", &image, text(&bundle)]);
        for change in changes {
            change(&bundle.join("rootfs"));
            run("umoci", &["repack", "--refresh-bundle", "--image", &image, text(&bundle)]);
        }
        fs::remove_dir_all(&bundle).unwrap();
        layout
    }

    /// What umoci unpacks.
    pub fn unpacked(&self, layout: &Path) -> PathBuf {
        let bundle = self.at("unpacked");
        let image = format!("{}:latest", text(layout));
        run("umoci", &["unpack", "--image", &image, text(&bundle)]);
        bundle.join("rootfs")
    }
}

/// Everything that a layer can say of the layers below it.
pub fn awkward(world: &World) -> PathBuf {
    let write = |path: PathBuf, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let base = |root: &Path| {
        fill(root, true);
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in ["gone/a/b", "opaque/old/x", "opaque/y", "folder/z", "file", "usr/lib/one"] {
            write(root.join(name), name);
        }
        fs::hard_link(root.join("file"), root.join("file-too")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
    };
    let second = |root: &Path| {
        run("setcap", &["cap_net_raw+ep", text(&root.join("bin/busybox"))]);
        run("mknod", &[text(&root.join("null-too")), "c", "1", "3"]);
        run("mknod", &[text(&root.join("disk")), "b", "7", "300"]);
        run("chown", &["-h", "1000:2000", text(&root.join("lib"))]);
        fs::set_permissions(root.join("bin"), fs::Permissions::from_mode(0o2711)).unwrap();
        fs::remove_dir_all(root.join("gone/a")).unwrap();
        fs::remove_dir_all(root.join("opaque")).unwrap();
        write(root.join("opaque/new"), "new");
        // A folder becomes a file, and a file a folder.
        fs::remove_dir_all(root.join("folder")).unwrap();
        write(root.join("folder"), "now a file");
        fs::remove_file(root.join("file")).unwrap();
        write(root.join("file/inside"), "now a folder");
    };
    let third = |root: &Path| {
        // A link to a file of the layer below, and a file that replaces one of two links.
        fs::hard_link(root.join("usr/lib/one"), root.join("usr/lib/two")).unwrap();
        fs::hard_link(root.join("bin/busybox"), root.join("bin/ash")).unwrap();
        fs::remove_file(root.join("file-too")).unwrap();
        write(root.join("file-too"), "alone");
        fs::remove_file(root.join("lib")).unwrap();
        write(root.join("lib/three"), "not through a link");
    };
    let fourth = |root: &Path| {
        fs::remove_dir_all(root.join("opaque")).unwrap();
        fs::remove_file(root.join("bin/ash")).unwrap();
        write(root.join("gone"), "");
    };
    let fourth = |root: &Path| {
        fs::remove_dir_all(root.join("gone")).unwrap();
        fourth(root);
    };
    world.layered(&[&base, &second, &third, &fourth])
}

#[test]
fn layers_of_umoci_become_what_umoci_unpacks() {
    if !is_root_for("unpack an image with owners and devices") {
        return;
    }
    let world = World::new();
    let layout = awkward(&world);
    let image = world.import(&layout).unwrap();
    compare_trees(&world.unpacked(&layout), &image.root_disk(), "folder");
    assert!(image.record.provenance.starts_with("OCI image with SHA-256 "));
    // The same image in other forms is the same disk.
    let source = format!("oci:{}:latest", text(&layout));
    for (name, to, more) in [
        ("plain.tar", "oci-archive:PATH:latest", &[][..]),
        ("saved.tar", "docker-archive:PATH:some/name:1", &[]),
        ("zstd", "oci:PATH:latest", &["--dest-compress-format", "zstd"]),
    ] {
        let path = world.at(name);
        let to = to.replace("PATH", text(&path));
        run("skopeo", &[&["copy", "--quiet"], more, &[&source, &to]].concat());
        let again = world.import(&path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        compare_trees(&world.at("unpacked/rootfs"), &again.root_disk(), name);
        if name.ends_with(".tar") {
            run("gzip", &["-1", text(&path)]);
            let packed = path.with_extension("tar.gz");
            let packed = world.import(&packed).unwrap();
            assert_eq!(packed.record.id, again.record.id, "{name} compressed");
        }
    }
    assert!(half_made(&world.at("images")).is_empty());
}

#[test]
fn the_configuration_of_buildah_is_kept() {
    if !is_root_for("build an image by buildah") {
        return;
    }
    let world = World::new();
    let (root, run_root) = (world.at("storage"), world.at("run"));
    let buildah = |args: &[&str]| {
        let global = ["--root", text(&root), "--runroot", text(&run_root)];
        run("buildah", &[&global[..], &["--storage-driver", "vfs"], args].concat())
    };
    let container = buildah(&["from", "scratch"]);
    buildah(&["add", &container, "/bin/busybox", "/bin/sh"]);
    let config = ["config", "--entrypoint", r#"["/bin/sh","-c"]"#, "--cmd", "'echo hi'"];
    let more = ["--env", "A=1 2", "--port", "80", "--user", "7:8", "--workingdir", "/w"];
    let rest = ["--label", "x=y", "--stop-signal", "SIGQUIT", &container];
    buildah(&[&config[..], &more, &rest].concat());
    let (folder, saved) = (world.at("folder"), world.at("saved.tar"));
    buildah(&["commit", "--quiet", &container, &format!("oci:{}", text(&folder))]);
    let archive = format!("docker-archive:{}:x/y:1", text(&saved));
    buildah(&["commit", "--quiet", &container, &archive]);
    for path in [&folder, &saved] {
        let config = world.import(path).unwrap().record.config.unwrap();
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        assert!(config.env.contains(&"A=1 2".to_owned()), "{config:?}");
        assert_eq!(config.labels["x"], "y");
        let expected = ImageConfig {
            entrypoint: list(&["/bin/sh", "-c"]),
            cmd: list(&["echo hi"]),
            env: config.env.clone(),
            user: Some("7:8".into()),
            working_dir: Some("/w".into()),
            exposed_ports: list(&["80/tcp"]),
            labels: config.labels.clone(),
            stop_signal: Some("SIGQUIT".into()),
        };
        // buildah writes ports as they were given.
        let ports = config.exposed_ports.iter().map(|port| format!("{port}/tcp")).collect();
        let ports =
            if config.exposed_ports == ["80"] { ports } else { config.exposed_ports.clone() };
        assert_eq!(ImageConfig { exposed_ports: ports, ..config }, expected);
    }
}

#[test]
fn one_flipped_byte_is_refused_and_names_the_file() {
    if !is_root_for("unpack an image by umoci") {
        return;
    }
    let world = World::new();
    let layout = world.layered(&[&busybox]);
    world.import(&layout).unwrap();
    let saved = world.at("saved.tar");
    let source = format!("oci:{}:latest", text(&layout));
    run("skopeo", &["copy", "-q", &source, &format!("docker-archive:{}:a:b", text(&saved))]);
    world.import(&saved).unwrap();
    let mut seen = 0;
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap().map(Result::unwrap) {
        let path = blob.path();
        let whole = fs::read(&path).unwrap();
        for at in [whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            // umoci leaves the documents of earlier states in the layout.
            if let Err(error) = world.import(&layout) {
                let error = with_causes(&error);
                assert!(error.contains(blob.file_name().to_str().unwrap()), "{error}");
                seen += 1;
            }
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        if let Err(error) = world.import(&layout) {
            assert!(with_causes(&error).contains(blob.file_name().to_str().unwrap()));
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(seen, 6, "manifest, configuration and layer");
    let mut flipped = fs::read(&saved).unwrap();
    // Within the layer, which comes first and is not compressed.
    flipped[1 << 20] ^= 1;
    fs::write(&saved, flipped).unwrap();
    let error = with_causes(&world.import(&saved).unwrap_err());
    assert!(error.contains("does not match its digest"), "{error}");
    assert!(half_made(&world.at("images")).is_empty());
}
