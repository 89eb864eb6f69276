//! A Debian package of one program, so that a test needs no package source.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes `NAME.deb`, version 1.5, with a program at an absolute path of the guest; its scratch
/// files stay in `folder`.
pub fn package(folder: &Path, name: &str, (path, program): (&str, &str)) -> PathBuf {
    let tree = folder.join(name);
    let placed = tree.join(path.trim_start_matches('/'));
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::create_dir_all(placed.parent().unwrap()).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1.5\nArchitecture: all\n\
         Maintainer: A test <test@example.com>\nDescription: one program\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::write(&placed, program).unwrap();
    let package = folder.join(format!("{name}.deb"));
    let script = "chmod 755 \"$0\" && dpkg-deb --root-owner-group --build \"$1\" \"$2\"";
    let made = Command::new("sh").args(["-c", script]).args([&placed, &tree, &package]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    package
}
