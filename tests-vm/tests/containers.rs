//! Images of a registry boot: pulled by `run`, without an init of their own. Debian's is in the
//! guest what GNU tar and umoci extract.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::{Home, Registry};
use tests_vm::archive::archive;
use tests_vm::container::{layout, umoci};

#[test]
fn an_image_of_a_registry_is_pulled_and_boots() {
    let folder = tempfile::tempdir().unwrap();
    let layout = layout(folder.path());
    let registry = Registry::start(&folder.path().join("registry"), "", "");
    registry.push(&layout, "tiny:1", &[]);
    let home = Home::new();
    let image = format!("{}/tiny:1", registry.host);
    let run = ["run", "--image", &image, "--memory", "512M", "--rm", "--"];
    let out =
        home.ok(&[&run[..], &["sh", "-c", "cat /etc/os-release; test ! -e /etc/gone"]].concat());
    assert_eq!(out, "NAME=Tiny\n");
    // The images of all tests are in one store.
    home.ok(&["image", "delete", &image]);
    home.finish();
}

/// Prints the tree below the present folder: [`LISTING`], times with nanoseconds, digests.
const LIST: &str = "perl /tmp/list.pl; echo; find . -mindepth 1 -printf '%p\\t%T@\\n'; echo; \
    find . -type f -exec sha256sum {} +";
const LISTING: &str = include_str!("../fixtures/list.pl");

/// Properties of each file: those of `list.pl` but its inode, the first of its names, its time and
/// its digest.
type Tree = BTreeMap<String, Vec<String>>;

fn tree(printed: &str) -> Tree {
    let mut parts = printed.split("\n\n");
    let (mut tree, mut by_inode) = (Tree::new(), HashMap::<String, Vec<String>>::new());
    for line in parts.next().unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [path, numbers, inode, rest] = fields[..] else { panic!("{line:?}") };
        by_inode.entry(inode.to_owned()).or_default().push(path.to_owned());
        tree.insert(path.to_owned(), vec![numbers.to_owned(), rest.to_owned()]);
    }
    for names in by_inode.into_values().filter(|names| names.len() > 1) {
        let first = names.iter().min().unwrap();
        names.iter().for_each(|name| tree.get_mut(name).unwrap().push(format!("is {first}")));
    }
    for line in parts.next().unwrap().lines() {
        let (path, time) = line.split_once('\t').unwrap();
        tree.get_mut(path).unwrap().push(time.trim_end_matches(['0', '.']).to_owned());
    }
    for line in parts.next().unwrap().lines() {
        let (digest, path) = line.split_once("  ").unwrap();
        tree.get_mut(path).unwrap().push(digest.to_owned());
    }
    // What an import leaves out or changes: the machine's identity.
    let left_out = |path: &str| {
        let identity = ["./etc/machine-id", "./var/lib/dbus/machine-id", "./lost+found"];
        identity.contains(&path) || path.starts_with("./etc/ssh/ssh_host_")
    };
    tree.retain(|path, _| !left_out(path));
    // The folders that those were in.
    for folder in ["./etc", "./var/lib/dbus"] {
        if let Some(properties) = tree.get_mut(folder) {
            properties.truncate(0);
        }
    }
    tree
}

fn on_host(folder: &Path, list: &Path) -> Tree {
    let script = LIST.replace("/tmp/list.pl", list.to_str().unwrap());
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tree(&String::from_utf8(output.stdout).unwrap())
}

fn compare(ours: &Tree, theirs: &Tree, what: &str) {
    assert!(theirs.len() > 5000, "{}", theirs.len());
    for (path, properties) in theirs {
        assert_eq!(ours.get(path), Some(properties), "{what}: {path}");
    }
    let more: Vec<_> = ours.keys().filter(|path| !theirs.contains_key(*path)).collect();
    assert!(more.is_empty(), "{what}: {more:?}");
}

/// Unpacks an archive by GNU tar.
fn unpack(archive: &Path, folder: &Path) {
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(archive);
    let output = tar.arg("-C").arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An OCI layout with the content of an archive.
fn layout_of(archive: &Path, folder: &Path) -> PathBuf {
    let (layout, bundle) = (folder.join("layout"), folder.join("bundle"));
    let (layout_text, bundle_text) = (layout.to_str().unwrap(), bundle.to_str().unwrap());
    let image = format!("{layout_text}:latest");
    umoci(&["init", "--layout", layout_text]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, bundle_text]);
    unpack(archive, &bundle.join("rootfs"));
    umoci(&["repack", "--image", &image, bundle_text]);
    fs::remove_dir_all(bundle).unwrap();
    layout
}

#[test]
fn debian_of_a_registry_is_in_the_guest_what_gnu_tar_and_umoci_extract() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only the superuser can unpack an image with its owners");
    }
    // The one of `inits.rs`.
    let packages = "sysvinit-core,initscripts,procps";
    let archive = archive("test-sysvinit", packages, "true");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let layout = layout_of(&archive, folder.path());
    let registry = Registry::start(&at("registry"), "", "");
    registry.push(&layout, "debian:1", &[]);
    fs::create_dir(at("tar")).unwrap();
    unpack(&archive, &at("tar"));
    let image = format!("{}:latest", layout.display());
    umoci(&["unpack", "--image", &image, at("umoci").to_str().unwrap()]);
    fs::write(at("list.pl"), LISTING).unwrap();

    let home = Home::new();
    let image = format!("{}/debian:1", registry.host);
    // The image's own disk, without what the boot and the overlay add.
    let script = format!(
        "cat >/tmp/list.pl && mkdir /tmp/image && mount -o ro LABEL=banger-root /tmp/image && \
         cd /tmp/image && {LIST}"
    );
    let run = ["run", "-i", "--image", &image, "--memory", "512M", "--rm", "--", "sh", "-c"];
    let run = home.run_with_input(&[&run[..], &[&script]].concat(), LISTING.as_bytes());
    assert_eq!(run.code, 0, "{}", run.err);
    let ours = tree(&run.out);
    compare(&ours, &on_host(&at("tar"), &at("list.pl")), "GNU tar");
    compare(&ours, &on_host(&at("umoci/rootfs"), &at("list.pl")), "umoci");
    home.ok(&["image", "delete", &image]);
    home.finish();
}
