//! The lab itself: what a host must have, and Firecracker started by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floor's TAP, made beforehand.
const TAP: &str = "floor0";
/// What a guest is told that has a root disk (0), a work disk (1), modules (2) and a network.
const CONFIG: &str = r#"{"protocol":1,"hostname":"floor",
"machine_id":"0123456789abcdef0123456789abcdef","root":{"disk":{"index":0},"layer":null},
"work":{"index":1},"modules":{"index":2},"network":{"mac":"02:00:00:00:00:01",
"addresses":["10.9.0.2/24"],"gateway":"10.9.0.1","dns":["10.9.0.1"],"search":[],"mtu":null},
"files":[],"env":{},"clock_unix_ms":0,"entropy":""}"#;
/// Longest time from the first process to ready, in milliseconds: five seconds are usual.
const MAX_READY_MS: u64 = 60_000;

fn shell(script: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}\n{printed}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The largest file of this name that the test cache has: the kernel's, and the whole Debian's.
fn object(kind: &str, file: &str) -> PathBuf {
    let cache = PathBuf::from(std::env::var_os("BANGER_TEST_CACHE").unwrap());
    let folder = cache.join("data").join(kind);
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path().join(file));
    let found = entries.filter(|path| path.exists());
    found.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Names, loop devices, mappings, links and VMMs that a test may not leave behind.
fn host() -> String {
    shell("dmsetup ls; losetup -a; ip -br link; nft list ruleset; pgrep firecracker || true")
}

#[test]
fn smoke_the_lab_is_a_host_with_kvm_and_systemd() {
    assert!(Path::new("/dev/kvm").exists());
    shell("systemctl is-system-running --wait");
    assert_eq!(shell("resolvectl query localhost | head -n1 | cut -d: -f1"), "localhost");
    assert_eq!(shell("runuser -u dev -- sudo -n id -u"), "0");
    assert!(shell("firecracker --version").contains("v1.12.1"));
    assert!(shell("jailer --version").contains("v1.12.1"));
    shell("nft list ruleset && dmsetup version");
}

/// The command that starts Firecracker by hand with parts like ours, which it makes first; the TAP
/// is to be removed in the end: [`remove_tap`]. One that a failed test left is made anew.
pub fn floor_command() -> String {
    // It goes with the lab.
    let path = PathBuf::from(shell("mktemp -d"));
    let program = banger_testkit::program("guest/banger-agent");
    let modules = object("kernels", "boot-modules");
    let tree = path.join("tree");
    // The boot initramfs: what banger makes of the same parts.
    shell(&format!(
        "ip link delete {TAP} 2>/dev/null || true
         ip tuntap add {TAP} mode tap; ip link set {TAP} up
         mkdir -p {tree}/{{proc,sys,dev,newroot,image,layer,run,modules}}
         mknod {tree}/dev/console c 5 1
         cp {program} {tree}/init; cp {modules}/* {tree}/modules/
         cd {tree}; find . | cpio -o -H newc --quiet >../initramfs
         truncate -s 1G ../work.ext4; mke2fs -q -t ext4 ../work.ext4",
        tree = tree.display(),
        program = program.display(),
        modules = modules.display(),
    ));
    // One line, as the agent reads it.
    fs::write(path.join("config.json"), CONFIG.replace('\n', "") + "\n").unwrap();
    let append = "console=ttyS0 quiet reboot=k panic=-1 pci=off rdinit=/init net.ifnames=0 \
                  cloud-init=disabled cryptomgr.notests=1 random.trust_cpu=on i8042.noaux \
                  i8042.nomux i8042.dumbkbd";
    let script = banger_testkit::program("floor-firecracker.sh");
    let parts = [
        script,
        path.join("config.json"),
        object("kernels", "vmlinux"),
        path.join("initramfs"),
        object("kernels", "modules.ext4"),
        object("images", "root.ext4"),
        path.join("work.ext4"),
    ];
    let parts: Vec<String> = parts.iter().map(|part| part.display().to_string()).collect();
    format!("TAP={TAP} MAC=02:00:00:00:00:01 {} '{append}' 256", parts.join(" "))
}

/// Removes what [`floor_command`] made outside of its folder.
pub fn remove_tap() {
    shell(&format!("ip link delete {TAP}"));
}

#[test]
fn smoke_firecracker_by_hand_boots_to_ready() {
    let before = host();
    let took = shell(&floor_command());
    println!("ready after {took} ms");
    remove_tap();
    assert!(took.parse::<u64>().unwrap() < MAX_READY_MS);
    assert_eq!(host(), before, "something is left");
}
