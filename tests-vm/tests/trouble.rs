//! A VMM that is frozen, a guest that unbinds its vsock driver, a disk of the host that is full:
//! real VMs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::{Home, kill};

fn health(home: &Home) -> String {
    // Its exit code is not 0 where the agent is lost.
    let output = home.run(&["--json", "vm", "health", "web"]).out;
    let document: serde_json::Value = serde_json::from_str(&output).unwrap();
    document[0]["agent"].as_str().unwrap().to_owned()
}

/// Unbinds the driver of each vsock device, and binds it again after 15 s. Not before the end of
/// this command is reported through it.
const UNBIND: &str = "
cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport || exit 1
set -- virtio*
(sleep 2
 for device; do echo $device >unbind; done
 sleep 15
 for device; do echo $device >bind; done) >/dev/null 2>&1 &";

#[test]
fn a_guest_is_reachable_again_after_its_vmm_was_frozen_or_its_driver_unbound() {
    let home = Home::new();
    home.ok(&["vm", "create", "--name", "web"]);
    let vmm = home.json(&["vm", "show", "web"])["pid"].as_u64().unwrap();
    let vmm = u32::try_from(vmm).unwrap();
    let mut session =
        home.spawn(&["exec", "--wait", "ready", "web", "--", "sh", "-c", "echo up; sleep 1000"]);
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");

    kill(vmm, "STOP");
    // The daemon gives up, and its connection is closed before the guest answers it.
    assert_eq!(health(&home), "lost");
    kill(session.id(), "TERM");
    assert_eq!(session.wait().unwrap().code(), Some(143));
    kill(vmm, "CONT");
    home.wait("an answer of the agent", || health(&home) == "ok");

    let unbound = home.run(&["exec", "--wait", "ready", "web", "--", "sh", "-c", UNBIND]);
    assert_eq!(unbound.code, 0, "{}", unbound.err);
    home.wait("the loss of the agent", || health(&home) == "lost");
    assert_eq!(home.state("web"), "running");
    home.wait("an answer of the agent", || health(&home) == "ok");
    home.ok(&["vm", "kill", "web"]);
    home.ok(&["vm", "delete", "web"]);
    home.finish();
}

/// A file system of its own for the VMs of a home, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, size: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={size},mode=0700");
        let mut mount = Command::new("mount");
        assert!(
            mount
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(folder)
                .status()
                .unwrap()
                .success()
        );
        Self(folder.to_owned())
    }

    fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Nobody frees space for a guest that nobody uses: nothing of the build is left but its log.
fn a_build_fails_where_the_host_disk_is_full(home: &Home) {
    let script = home.path().join("fill.sh");
    fs::write(&script, "dd if=/dev/zero of=/var/big bs=1M count=1500 oflag=direct\n").unwrap();
    let script = script.to_str().unwrap();
    let full = home.run(&["image", "build", "full", "--from", "debian", "--script", script]);
    assert_eq!(full.code, 5, "{}", full.err);
    assert!(full.err.contains("is full"), "{}", full.err);
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    assert_eq!(home.run(&["image", "show", "full"]).code, 3);
    assert_eq!(fs::read_dir(home.path().join("state/vms")).unwrap().count(), 0);
}

#[test]
fn a_guest_is_paused_while_the_host_disk_is_full() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    let home = Home::new();
    home.ok(&["daemon", "stop"]);
    let disk = SmallDisk::mount(&home.path().join("state/vms"), "110M");
    home.ok(&["vm", "create", "--name", "web"]);
    let notices = || home.json(&["vm", "show", "web"])["notices"].to_string();
    assert!(notices().contains("when it is full, the guest is paused"), "{}", notices());
    let write = "dd if=/dev/zero of=/root/big bs=1M count=150 oflag=direct && sync && echo written";
    let mut writing = home.spawn(&["exec", "--wait", "ready", "web", "--", "sh", "-c", write]);
    home.wait("the guest to be held", || notices().contains("paused: the disk of the host"));
    let health = home.run(&["vm", "health", "web"]);
    assert!(health.out.contains("is full"), "{} {}", health.out, health.err);
    let exec = home.run(&["exec", "--wait", "ready", "web", "--", "true"]);
    assert!(exec.err.contains("is full"), "{}", exec.err);
    disk.resize("1G");
    let mut lines = BufReader::new(writing.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "written");
    assert_eq!(writing.wait().unwrap().code(), Some(0));
    assert!(!notices().contains("paused: "), "{}", notices());
    home.ok(&["vm", "delete", "-f", "web"]);
    // A build has a whole copy of the image's disk.
    disk.resize("900M");
    a_build_fails_where_the_host_disk_is_full(&home);
    home.ok(&["daemon", "stop"]);
    drop(disk);
    home.finish();
}
