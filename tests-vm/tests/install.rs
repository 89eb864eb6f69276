//! Installing, upgrading with a VM running, and removing.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::{Home, Options, Run, program};

/// Programs that carry the build id.
const PROGRAMS: [&str; 4] = ["banger", "bangerd", "banger-root", "banger-shim"];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a script of the project with these variables.
fn script(name: &str, argument: &str, env: &[(&str, &Path)]) -> Run {
    let mut command = Command::new(project().join("scripts").join(name));
    for unset in ["PREFIX", "DESTDIR", "BUILD"] {
        command.env_remove(unset);
    }
    command.arg(argument).envs(env.iter().copied()).output().unwrap().into()
}

fn build() -> PathBuf {
    program("banger").parent().unwrap().to_owned()
}

/// All files and links in a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path());
            }
        }
    }
    found
}

/// A copy of the build that differs in its build id, as the next version does.
fn next_build(folder: &Path, id: &str) -> String {
    let (first, rest) = id.split_at(1);
    let next = format!("{}{rest}", if first == "0" { "1" } else { "0" });
    let links = ["banger-forward", "vhost-device-vsock", "guest"];
    for name in links {
        std::os::unix::fs::symlink(build().join(name), folder.join(name)).unwrap();
    }
    for name in PROGRAMS {
        let path = folder.join(name);
        std::fs::copy(build().join(name), &path).unwrap();
        let edit = format!("s/{id}/{next}/g");
        let edited = Command::new("sed").env("LC_ALL", "C").args(["-i", &edit]).arg(&path).status();
        assert!(edited.unwrap().success());
    }
    next
}

#[test]
fn an_upgrade_keeps_running_vms_and_uninstalling_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("usr");
    let run = |verb: &str, build: &Path| {
        let run = script("install.sh", verb, &[("PREFIX", &prefix), ("BUILD", build)]);
        assert_eq!(run.code, 0, "{}", run.err);
    };
    run("install", &build());
    let home = Home::with(Options { cli: Some(prefix.join("bin/banger")), ..Options::default() });
    home.ok(&["vm", "create", "--name", "web"]);
    let boot = home.json(&["vm", "show", "web"])["boot_id"].clone();
    let status = home.json(&["daemon", "status"]);
    let program = std::fs::read_link(format!("/proc/{}/exe", status["pid"])).unwrap();
    assert_eq!(program, std::fs::canonicalize(&prefix).unwrap().join("lib/banger/bangerd"));

    // The next version replaces the programs under the running ones.
    let next = folder.path().join("next");
    std::fs::create_dir(&next).unwrap();
    let id = next_build(&next, status["build_id"].as_str().unwrap());
    run("install", &next);
    let exec =
        home.run(&["exec", "--wait", "ready", "web", "cat", "/proc/sys/kernel/random/boot_id"]);
    assert_eq!(exec.out.trim(), boot, "{}", exec.err);
    let status = home.json(&["daemon", "status"]);
    assert_eq!(status["build_id"], id.as_str(), "{status:#}");
    assert_eq!(home.json(&["vm", "show", "web"])["boot_id"], boot);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();

    run("uninstall", &next);
    assert_eq!(files(&prefix), BTreeSet::new());
    assert!(!prefix.join("lib/banger").exists());
}

#[test]
fn a_package_has_the_files_of_an_installation() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("BUILD", build()), ("DPKG_DEB_COMPRESSOR_TYPE", "none".into())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_path()));
    let run = script("package-deb.sh", folder.path().to_str().unwrap(), &env);
    assert_eq!(run.code, 0, "{}", run.err);
    let package = run.out.trim();
    let unpacked = folder.path().join("unpacked");
    let done = Command::new("dpkg-deb").args(["-x", package]).arg(&unpacked).status().unwrap();
    assert!(done.success());
    let (mut docs, mut packaged) = (0, BTreeSet::new());
    for path in files(&unpacked) {
        let path = Path::new("/").join(path.strip_prefix(&unpacked).unwrap());
        match path.starts_with("/usr/share/doc/banger") {
            true => docs += 1,
            false => drop(packaged.insert(path)),
        }
    }
    let build = build();
    let env = [("PREFIX", Path::new("/usr")), ("BUILD", build.as_path())];
    let list = script("install.sh", "list", &env).out;
    assert_eq!(packaged, list.lines().map(PathBuf::from).collect());
    assert!(docs > 3, "{docs}");
    let unit = unpacked.join("usr/lib/systemd/user/bangerd.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("ExecStart=/usr/lib/banger/bangerd\n"), "{unit}");
    let version = Command::new(unpacked.join("usr/bin/banger")).arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"banger "), "{version:?}");
}

#[test]
fn installing_without_a_build_or_with_a_relative_prefix_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run =
        script("install.sh", "install", &[("PREFIX", folder.path()), ("BUILD", folder.path())]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("is missing: run `make build` first"), "{}", run.err);
    let run = script("install.sh", "install", &[("PREFIX", Path::new("usr"))]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("PREFIX must be an absolute path, it is `usr`"), "{}", run.err);
    assert_eq!(files(folder.path()), BTreeSet::new());
}
