//! Inputs that other programs wrote, from which mutations start.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {printed}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small root file system, with names, links and holes that formats write in special ways.
fn rootfs(folder: &Path) -> PathBuf {
    let root = folder.join("rootfs");
    let long = "long-name-".repeat(12);
    fs::create_dir_all(root.join("bin").join(&long)).unwrap();
    fs::write(root.join("bin/sh"), "#!").unwrap();
    fs::hard_link(root.join("bin/sh"), root.join("bin/ash")).unwrap();
    symlink("/bin/sh", root.join("bin/link")).unwrap();
    symlink(long.repeat(2), root.join("bin").join(&long).join("long-link")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 300_000).unwrap();
    let value = b"value";
    // A file system without attributes has none to write.
    let _ =
        rustix::fs::setxattr(root.join("bin/sh"), "user.a", value, rustix::fs::XattrFlags::empty());
    root
}

/// The archives of GNU tar.
fn archives(folder: &Path, root: &Path) -> Vec<Vec<u8>> {
    let archive = folder.join("archive.tar");
    let kinds: [&[&str]; 5] = [
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--xattrs"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=oldgnu"],
        &["--format=ustar", "--exclude=long-name*"],
    ];
    let made = kinds.iter().map(|options| {
        let args = [*options, &["-b1", "-C", text(root), "-cf", text(&archive), "."]].concat();
        run("tar", &args);
        fs::read(&archive).unwrap()
    });
    made.collect()
}

/// A second layer: whiteouts, an opaque folder, a folder in place of a file.
fn upper(folder: &Path) -> Vec<u8> {
    let root = folder.join("upper");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("sparse/inside")).unwrap();
    fs::write(root.join("bin/.wh.sh"), "").unwrap();
    fs::write(root.join("bin/.wh..wh..opq"), "").unwrap();
    fs::write(root.join("bin/new"), "new").unwrap();
    fs::hard_link(root.join("bin/new"), root.join("bin/newer")).unwrap();
    let archive = folder.join("upper.tar");
    run("tar", &["-b1", "-C", text(&root), "-cf", text(&archive), "."]);
    fs::read(&archive).unwrap()
}

/// The documents that umoci writes for an image with this configuration.
fn documents(folder: &Path) -> Vec<Vec<u8>> {
    let layout = folder.join("layout");
    let image = format!("{}:latest", text(&layout));
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    let settings = ["--config.entrypoint=/bin/sh", "--config.env=A=B", "--config.label=a=b"];
    let more = ["--config.exposedports=80/tcp", "--config.stopsignal=SIGQUIT"];
    run("umoci", &[&["config", "--image", &image][..], &settings, &more].concat());
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let mut all: Vec<Vec<u8>> = blobs.map(|blob| fs::read(blob.unwrap().path()).unwrap()).collect();
    all.push(fs::read(layout.join("index.json")).unwrap());
    // A platform, and the list of `docker save`, which umoci does not write.
    let digest = "0".repeat(64);
    all.push(
        format!(r#"[{{"Config":"{digest}.json","RepoTags":["a:1"],"Layers":["l.tar"]}}]"#).into(),
    );
    all.sort();
    all
}

/// File systems of mke2fs: with checksums and without, extents and block maps, small and large
/// blocks, and many files in a folder.
fn file_systems(folder: &Path, root: &Path) -> Vec<Vec<u8>> {
    let image = folder.join("image");
    let many = root.join("many");
    fs::create_dir_all(&many).unwrap();
    for number in 0..60 {
        fs::write(many.join(format!("a-file-with-a-name-{number}")), "x").unwrap();
    }
    let kinds: [&[&str]; 4] = [
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal,^64bit"],
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^has_journal"],
    ];
    let made = kinds.iter().map(|options| {
        let _ = fs::remove_file(&image);
        let args = [&["-q", "-F", "-d", text(root)], *options, &[text(&image), "1536k"]].concat();
        run("mke2fs", &args);
        fs::read(&image).unwrap()
    });
    made.collect()
}

/// Writes the seeds of each target into a folder of its name.
pub fn write(to: &Path) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let root = rootfs(folder);
    let archives = archives(folder, &root);
    let length = |layer: &[u8]| u32::try_from(layer.len()).unwrap().to_le_bytes();
    let upper = upper(folder);
    let layers =
        archives.iter().map(|lower| [&length(lower)[..], lower, &length(&upper), &upper].concat());
    let layers: Vec<Vec<u8>> = layers.collect();
    let file_systems = file_systems(folder, &root);
    for (target, seeds) in [
        ("layers", layers),
        ("tar", archives),
        ("manifest", documents(folder)),
        ("used", file_systems.clone()),
        ("ext4", file_systems),
    ] {
        let to = to.join(target);
        fs::create_dir_all(&to).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(to.join(number.to_string()), seed).unwrap();
        }
    }
}
