//! Images built in VMs: packages, files, a script; what is removed; a daemon that dies. Docker,
//! installed in the image, runs containers on overlay2.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::{Home, test_cache};
use tests_vm::container::layout;
use tests_vm::package::package;

const IMAGE: &str = "test-build";
const COMMITTED: &str = "test-build-committed";
const LOST: &str = "test-build-lost";

/// Runs a program; returns its standard output.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Debian's packages of Docker that the image of this disk lacks, downloaded once, so that the
/// guest needs no package source; and their installed size in bytes.
fn docker_packages(disk: &Path) -> (Vec<PathBuf>, u64) {
    let folder = test_cache().join("docker");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let status = output(Command::new("debugfs").args(["-R", "cat /var/lib/dpkg/status"]).arg(disk));
    let (archives, known) = (folder.join("cache/archives"), folder.join("status"));
    if fs::read_to_string(folder.join("ready")).ok().as_ref() != Some(&status) {
        let _ = fs::remove_dir_all(&archives);
        for made in [archives.join("partial"), folder.join("state/lists/partial")] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(&known, &status).unwrap();
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            for (option, path) in
                [("State", "state"), ("Cache", "cache"), ("State::status", "status")]
            {
                command.arg(format!("-oDir::{option}={}", folder.join(path).display()));
            }
            output(command.args(["-q", "-y", "-oAPT::Sandbox::User=root"]).args(args));
        };
        apt(&["update"]);
        apt(&["install", "--download-only", "--no-install-recommends", "docker.io"]);
        // xz takes a minute in an emulated guest.
        let packed = "for deb in *.deb; do dpkg-deb -R \"$deb\" tree; \
            dpkg-deb --root-owner-group -Zzstd -b tree \"$deb\"; rm -r tree; done";
        output(Command::new("sh").args(["-euc", packed]).current_dir(&archives));
        fs::write(folder.join("ready"), &status).unwrap();
    }
    let files = fs::read_dir(&archives).unwrap().map(|entry| entry.unwrap().path());
    let mut debs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    debs.sort();
    let size = |deb: &PathBuf| {
        let kib = output(Command::new("dpkg-deb").arg("-f").arg(deb).arg("Installed-Size"));
        kib.trim().parse::<u64>().unwrap() * 1024
    };
    let bytes = debs.iter().map(size).sum();
    (debs, bytes)
}

/// An image of Debian's busybox, as `docker save` writes it.
fn saved_busybox(folder: &Path) -> PathBuf {
    let saved = folder.join("busybox.tar");
    let from = format!("oci:{}:latest", layout(folder).display());
    let to = format!("docker-archive:{}:test/busybox:1", saved.display());
    output(Command::new("skopeo").args(["copy", "--quiet", &from, &to]));
    saved
}

/// What Docker does in a VM of the image.
const DOCKER: &str = "docker info -f '{{.Driver}}' && docker load -qi /srv/busybox.tar && \
    docker run --rm test/busybox:1 sh -c 'echo in a container'";
const IN_DOCKER: &str = "overlay2\nLoaded image: test/busybox:1\nin a container\n";

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
mkdir /root/many
cd /root/many && touch $(seq 300)
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

/// The stopped VM of a built image becomes an image of its own, without what belongs to it.
fn committed(home: &Home) {
    let script = "echo changed >/srv/site/index; rm /usr/bin/hello-build; \
        mv /usr/games /opt/games; \
        echo secret >/home/.x; touch /var/tmp/junk; echo typed >/root/.bash_history";
    home.ok(&["exec", "web", "--", "sh", "-c", script]);
    let refused = home.run(&["image", "commit", "web", COMMITTED]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("banger vm stop web"), "{}", refused.err);
    home.ok(&["vm", "stop", "web"]);
    let made = home.run(&["image", "commit", "web", COMMITTED, "--replace"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let disk = home.path().join("data/images").join(made.out.trim()).join("root.ext4");
    let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    is_cleaned(&disk);
    let in_image = |request: &str| {
        let shown = Command::new("debugfs").args(["-R", request]).arg(&disk).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    assert_eq!(in_image("cat /srv/site/index"), "changed\n");
    assert_eq!(in_image("cat /home/.x"), "secret\n");
    assert!(in_image("ls /opt").contains("games"), "{}", in_image("ls /opt"));
    assert!(!in_image("ls /usr/bin").contains("hello-build"));
    let chain = home.json(&["image", "history", COMMITTED]);
    let names: Vec<_> = chain.as_array().unwrap().iter().map(|one| &one["names"][0]).collect();
    assert_eq!(names, [COMMITTED, IMAGE, "debian"]);
    let packages = home.json(&["image", "show", "--packages", COMMITTED]);
    assert!(packages.as_array().unwrap().iter().any(|one| one == "hello-build 1.5"), "{packages}");
    home.ok(&["vm", "delete", "web"]);
    home.ok(&["image", "delete", COMMITTED]);
}

#[test]
fn a_built_image_has_what_was_asked_for_and_nothing_of_the_machine() {
    let home = Home::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let program = ("/usr/bin/hello-build", "#!/bin/sh\necho hello from the package\n");
    let deb = package(folder.path(), "hello-build", program).display().to_string();
    fs::create_dir(at("site")).unwrap();
    fs::write(at("site/index"), "<html>").unwrap();
    fs::set_permissions(at("site/index"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("script"), SCRIPT).unwrap();
    killed_in_the_script(&home, &at("slow"));
    let base = home.json(&["image", "show", "debian"]);
    let images = home.path().join("data/images");
    let base_disk = images.join(base["id"].as_str().unwrap()).join("root.ext4");
    let (docker, docker_bytes) = docker_packages(&base_disk);
    let busybox = saved_busybox(folder.path());
    let name = |deb: &PathBuf| deb.file_name().unwrap().to_string_lossy().into_owned();
    let mut packages: Vec<String> =
        docker.iter().map(|deb| format!("/var/tmp/docker/{}", name(deb))).collect();
    packages.push("/var/tmp/hello.deb".to_owned());
    let copies = [
        format!("{}:/var/tmp/docker", docker[0].parent().unwrap().display()),
        format!("{}:/srv/busybox.tar", busybox.display()),
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
    packages.iter().for_each(|package| args.extend(["--package", package.as_str()]));
    args.extend(["--size", "4G"]);
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
    assert_eq!(image["built"]["packages"], serde_json::json!(packages));
    assert_eq!(image["built"]["copies"].as_array().unwrap().len(), 6);
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    // The free blocks of the disk are not in the image.
    let used = |image: &serde_json::Value| image["used_bytes"].as_u64().unwrap();
    let most = used(&base) + docker_bytes + (64 << 20);
    assert!(used(&image) < most, "{} {} {docker_bytes}", used(&image), used(&base));
    let disk = images.join(&id).join("root.ext4");
    let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    is_cleaned(&disk);
    // `/root` has many files: VMs get them with a copy of the seed.
    assert!(disk.with_file_name("work.ext4").is_file());
    let script = "hello-build; ls /root/many | wc -l; cat /srv/site/index /root/.made; \
        findmnt -no FSTYPE /root; \
        test -s /etc/machine-id && test -s /etc/ssh/ssh_host_ed25519_key && echo whole; \
        systemctl is-system-running --wait";
    let script = format!("{script} && {DOCKER}");
    let run = home.run(&["run", "--name", "web", "--image", IMAGE, "--", "sh", "-c", &script]);
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
    let expected = "hello from the package\n300\n<html>made\next4\nwhole\nrunning\n";
    assert_eq!(run.out, format!("{expected}{IN_DOCKER}"));
    committed(&home);
    home.ok(&["image", "delete", IMAGE]);
    home.finish();
}
