//! The commands that an image build gives to each package manager, seen by programs of their names.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const PACKAGES: &str = include_str!("../../banger-engine/src/build/packages.sh");

/// The commands for these packages in an image with this package manager, and the exit code.
fn commands(manager: &str, failing: &str) -> (Vec<String>, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    if !manager.is_empty() {
        let program = folder.path().join(manager);
        let script = format!(
            "#!/bin/sh\necho \"${{0##*/}} $*\"\ncase \"$*\" in '{failing}') exit 3;; esac\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ran = Command::new("/bin/sh")
        .args(["-c", PACKAGES, "sh", "git", "/var/tmp/a.pkg"])
        .env_clear()
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let lines = String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect();
    (lines, ran.status.code())
}

#[test]
fn each_package_manager_is_called_without_questions() {
    let install = "-q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 install";
    let apt = ["apt-get -q update".to_owned(), format!("apt-get {install} git /var/tmp/a.pkg")];
    let dnf = |name: &str| format!("{name} -y install git /var/tmp/a.pkg");
    for (manager, expected) in [
        ("apt-get", &apt[..]),
        ("apk", &["apk add --no-progress git /var/tmp/a.pkg".to_owned()]),
        (
            "xbps-install",
            &[
                "xbps-install -S".to_owned(),
                // xbps refuses everything else while it is out of date itself.
                "xbps-install -y -u xbps".to_owned(),
                "xbps-install -y git /var/tmp/a.pkg".to_owned(),
            ],
        ),
        ("dnf", &[dnf("dnf")]),
        ("microdnf", &[dnf("microdnf")]),
        ("yum", &[dnf("yum")]),
    ] {
        assert_eq!(commands(manager, "-"), (expected.to_vec(), Some(0)), "{manager}");
        let last = expected.last().unwrap().split_once(' ').unwrap().1;
        assert_eq!(commands(manager, last).1, Some(3), "{manager} fails");
    }
    assert_eq!(commands("xbps-install", "-S"), (vec!["xbps-install -S".to_owned()], Some(3)));
    assert_eq!(commands("", ""), (Vec::new(), Some(127)));
}
