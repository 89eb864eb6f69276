//! The lab itself: what a host must have, and Firecracker started by hand.

use std::process::Command;

#[test]
fn smoke_the_lab_is_a_host_with_kvm_and_systemd() {
    assert!(std::path::Path::new("/dev/kvm").exists());
    let state = Command::new("systemctl").args(["is-system-running", "--wait"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "running");
}
