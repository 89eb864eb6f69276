//! Images of a registry boot: pulled by `run`, without an init of their own.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

use banger_testkit::{Home, Registry};

fn umoci(args: &[&str]) {
    let output = Command::new("umoci").args(args).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "umoci {args:?}: {printed}");
}

/// An OCI layout of an image with busybox only.
fn layout(folder: &Path) -> std::path::PathBuf {
    let (layout, bundle) = (folder.join("layout"), folder.join("bundle"));
    let (layout_text, bundle_text) = (layout.to_str().unwrap(), bundle.to_str().unwrap());
    let image = format!("{layout_text}:latest");
    umoci(&["init", "--layout", layout_text]);
    umoci(&["new", "--image", &image]);
    umoci(&["config", "--image", &image, "--config.cmd", "/bin/sh", "--config.env", "A=1"]);
    umoci(&["unpack", "--image", &image, bundle_text]);
    let root = bundle.join("rootfs");
    for folder in ["bin", "etc"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/os-release"), "NAME=Tiny\n").unwrap();
    fs::write(root.join("etc/gone"), "").unwrap();
    umoci(&["repack", "--refresh-bundle", "--image", &image, bundle_text]);
    fs::remove_file(root.join("etc/gone")).unwrap();
    umoci(&["repack", "--refresh-bundle", "--image", &image, bundle_text]);
    layout
}

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
