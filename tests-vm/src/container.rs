//! Container images made by umoci(1).

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs umoci(1).
///
/// # Panics
/// It fails.
pub fn umoci(args: &[&str]) {
    let output = Command::new("umoci").args(args).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "umoci {args:?}: {printed}");
}

/// An OCI layout of an image with busybox only.
///
/// # Panics
/// umoci fails.
pub fn layout(folder: &Path) -> PathBuf {
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
