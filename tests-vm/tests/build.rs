//! Images built in VMs: packages, files, a script; what is removed; a daemon that dies.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::Home;

const IMAGE: &str = "test-build";
const LOST: &str = "test-build-lost";

/// A package of our own, so that no package source is needed.
fn package(folder: &Path) -> PathBuf {
    let tree = folder.join("package");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    let control = "Package: hello-build\nVersion: 1.5\nArchitecture: all\n\
        Maintainer: A test <test@example.com>\nDescription: says hello\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let program = tree.join("usr/bin/hello-build");
    fs::write(&program, "#!/bin/sh\necho hello from the package\n").unwrap();
    let path = folder.join("hello.deb");
    let script = "chmod 755 \"$0\" && dpkg-deb --root-owner-group --build \"$1\" \"$2\"";
    let made = Command::new("sh").args(["-c", script]).args([&program, &tree, &path]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

/// Removes the sources of packages, which cannot be reached everywhere; fills the places that are
/// cleaned.
const SCRIPT: &str = "#!/bin/bash
set -eux
hello-build
[ \"$(stat -c %U:%a /srv/site/index)\" = root:640 ]
echo secret >/root/.bash_history
touch /var/tmp/junk /var/cache/apt/archives/junk.deb
echo line >>/var/log/dpkg.log
echo made >/root/.made
id -u
";

/// The daemon dies while the script of a build runs, and the build leaves nothing.
fn killed_in_the_script(home: &Home, script: &str) {
    fs::write(script, "echo began\nsleep 600\n").unwrap();
    let mut client = home.spawn(&["image", "build", LOST, "--from", "debian", "--script", script]);
    let logs = home.path().join("state/log/builds");
    home.wait_long("the script has begun", || {
        let log = fs::read_to_string(logs.join(format!("{LOST}-1.log"))).unwrap_or_default();
        log.contains("began")
    });
    assert_eq!(home.json(&["vm", "list"]).as_array().unwrap().len(), 1);
    home.kill_daemon();
    home.wait("the VM of the build is gone", || {
        home.json(&["vm", "list"]) == serde_json::json!([])
    });
    assert_ne!(client.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_dir(home.path().join("state/vms")).unwrap().count(), 0);
    assert_eq!(home.run(&["image", "show", LOST]).code, 3);
}

/// Nothing of the machine that built the image is in it.
fn is_cleaned(disk: &Path) {
    let in_image = |request: &str| {
        let shown = Command::new("debugfs").args(["-R", request]).arg(disk).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    assert_eq!(in_image("cat /etc/machine-id"), "");
    assert_eq!(in_image("cat /root/.made"), "made\n");
    let ssh = in_image("ls /etc/ssh");
    assert!(ssh.contains("sshd_config") && !ssh.contains("ssh_host_"), "{ssh}");
    for (folder, absent) in [
        ("/root", ".bash_history"),
        ("/root/.ssh", "authorized_keys"),
        ("/var/tmp", "junk"),
        ("/var/tmp", "hello.deb"),
        ("/var/cache/apt/archives", "junk.deb"),
        ("/var/lib/systemd", "random-seed"),
    ] {
        let listed = in_image(&format!("ls {folder}"));
        assert!(!listed.contains(absent), "{folder}: {listed}");
    }
    let journal = in_image("ls -p /var/log/journal");
    let entries = journal.lines().filter(|line| {
        line.split('/').nth(5).is_some_and(|name| !name.is_empty() && name != "." && name != "..")
    });
    assert_eq!(entries.count(), 0, "{journal}");
}

#[test]
fn a_built_image_has_what_was_asked_for_and_nothing_of_the_machine() {
    let home = Home::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let deb = package(folder.path()).display().to_string();
    fs::create_dir(at("site")).unwrap();
    fs::write(at("site/index"), "<html>").unwrap();
    fs::set_permissions(at("site/index"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("script"), SCRIPT).unwrap();
    killed_in_the_script(&home, &at("slow"));
    let copies = [
        format!("{deb}:/var/tmp/hello.deb"),
        format!("{}:/srv/site", at("site")),
        // Without sources nothing is fetched, wherever the test runs.
        format!("{}/.:/etc/apt/sources.list.d", at("empty")),
        format!("{}:/etc/apt/sources.list", at("none")),
    ];
    fs::write(at("none"), "").unwrap();
    let script = at("script");
    let mut args =
        vec!["image", "build", IMAGE, "--from", "debian", "--script", &script, "--replace"];
    copies.iter().for_each(|copy| args.extend(["--copy", copy]));
    args.extend(["--package", "/var/tmp/hello.deb", "--size", "4G"]);
    // The images of all tests are in one store.
    let run = home.run(&[&args[..], &["--no-cache"]].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("hello from the package"), "{}", run.err);
    let id = run.out.trim().to_owned();
    let again = home.run(&args);
    assert_eq!((again.code, again.out.trim()), (0, id.as_str()), "{}", again.err);
    assert!(again.err.contains("already built"), "{}", again.err);
    let image = home.json(&["image", "show", IMAGE]);
    assert_eq!(image["built"]["base_name"], "debian");
    assert_eq!(image["built"]["packages"], serde_json::json!(["/var/tmp/hello.deb"]));
    assert_eq!(image["built"]["copies"].as_array().unwrap().len(), 4);
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    // The free blocks of the disk are not in the image.
    let base = home.json(&["image", "show", "debian"]);
    let used = |image: &serde_json::Value| image["used_bytes"].as_u64().unwrap();
    assert!(used(&image) < used(&base) + (64 << 20), "{} {}", used(&image), used(&base));
    let disk = home.path().join("data/images").join(&id).join("root.ext4");
    let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    is_cleaned(&disk);
    let script = "hello-build; cat /srv/site/index /root/.made; findmnt -no FSTYPE /root; \
        test -s /etc/machine-id && test -s /etc/ssh/ssh_host_ed25519_key && echo whole; \
        systemctl is-system-running --wait";
    let run = home.run(&["run", "--rm", "--image", IMAGE, "--", "sh", "-c", script]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.out, "hello from the package\n<html>made\next4\nwhole\nrunning\n");
    home.ok(&["image", "delete", IMAGE]);
    home.finish();
}
