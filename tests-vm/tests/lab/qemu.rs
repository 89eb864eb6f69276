//! QEMU on a host with KVM and the helper, but without Firecracker.

use banger_testkit::{Home, kill};

use crate::support::{Outside, finish, home, host, id, inside, is_stopped, pid, shell, show};
use crate::users::User;

/// The companion, in a folder that only these tests search.
const COMPANION: &str = "vhost_device_vsock_bin = \"/payload/bin/qemu/vhost-device-vsock\"\n";

/// A VM of a home without Firecracker: its parts, and each way in which it ends.
fn a_life(home: &Home) {
    let _outside = Outside::new();
    home.ok(&["vm", "create", "--name", "web", "-p", "28480:80"]);
    let shown = show(home, "web");
    let drivers = &shown["drivers"];
    assert_eq!(drivers["vmm"], "qemu", "{shown:#}");
    assert_eq!(drivers["storage"], "dm-snapshot", "{shown:#}");
    assert_eq!(drivers["network"], "bridge", "{shown:#}");
    let vm = id(home, "web");
    has_all_parts(&vm);
    let args = shell(&format!("tr '\\0' ' ' </proc/{}/cmdline", pid(home, "web")));
    assert!(args.contains("-accel kvm ") && args.contains(" tap,id=net,fd="), "{args}");
    assert!(args.contains("file.driver=host_device"), "{args}");

    // A disk of its own, an address, and the way out through the bridge.
    let script = "findmnt -no FSTYPE /; ip -4 -br addr show eth0; curl -s http://198.51.100.1/; \
                  echo work >/root/kept; echo root >/etc/kept; sync";
    let output = inside(home, "web", script);
    assert!(output.starts_with("ext4\n") && output.contains("172.16.0."), "{output}");
    assert!(output.ends_with("outside"), "{output}");
    let services = "timeout 5 bash -c 'echo >/dev/tcp/172.16.0.1/22'; echo $?";
    assert_eq!(inside(home, "web", services), "124", "the host's services are behind the filter");

    // The daemon is killed: the next one finds the VM.
    let boot = show(home, "web")["boot_id"].clone();
    home.kill_daemon();
    assert_eq!(home.state("web"), "running");
    assert_eq!(show(home, "web")["boot_id"], boot);
    assert_eq!(inside(home, "web", "echo here"), "here");

    // QEMU is killed: all objects of the run are removed, and written files stay.
    kill(pid(home, "web"), "KILL");
    home.wait_long("web to be stopped", || home.state("web") == "stopped");
    let because = show(home, "web")["stopped_because"].clone();
    assert!(because["story"].as_str().unwrap().contains("signal 9"), "{because:#}");
    is_stopped(&vm);
    home.ok(&["vm", "start", "web"]);
    assert_eq!(inside(home, "web", "cat /root/kept /etc/kept"), "work\nroot");

    home.ok(&["vm", "delete", "-f", "web"]);
}

/// The daemon dies before QEMU is started, and before the guest has booted.
fn deaths_of_the_daemon(home: &Home) {
    home.ok(&["vm", "create", "--name", "web", "--no-start"]);
    let vm = id(home, "web");
    for point in ["start.network.applied", "start.shim.applied", "start.launch.applied"] {
        home.run(&["daemon", "stop"]);
        let mut daemon = home.start_daemon_that_aborts_at(point);
        home.run(&["vm", "start", "web"]);
        daemon.wait().unwrap();
        home.wait_long(point, || home.state("web") == "stopped");
        is_stopped(&vm);
    }
    home.ok(&["vm", "start", "web"]);
    has_all_parts(&vm);
    home.ok(&["vm", "delete", "-f", "web"]);
}

/// The helper aborts at the requests that only QEMU's start makes. The daemon repeats the request,
/// and the VM runs.
fn deaths_of_the_helper(user: &User, home: &Home) {
    home.ok(&["vm", "create", "--name", "web", "--no-start"]);
    let vm = id(home, "web");
    for request in ["snapshot_open", "tap_open"] {
        for when in ["before", "after"] {
            let point = format!("{request}.{when}");
            user.abort_helper_at(&point);
            home.ok(&["vm", "start", "web"]);
            assert!(user.helper_aborted(), "{point}");
            has_all_parts(&vm);
            home.ok(&["vm", "kill", "web"]);
            is_stopped(&vm);
        }
    }
    home.ok(&["vm", "delete", "-f", "web"]);
}

/// The parts of such a VM that are on the host while it runs.
fn has_all_parts(id: &str) {
    let now = host();
    for part in [
        format!("banger-{id}-root"),
        format!("banger-{id}-base"),
        format!("fc-{id}"),
        format!("/var/lib/banger-root/vms/{id}/owner"),
        "table inet banger".to_owned(),
        "table bridge banger".to_owned(),
    ] {
        assert!(now.contains(&part), "{part} is missing in\n{now}");
    }
    assert!(!now.contains("/jail/"), "{now}");
}

#[test]
fn qemu_has_a_bridge_and_a_snapshot_as_root_and_as_a_user() {
    let clean = host();
    let config = format!("{COMPANION}firecracker_bin = \"/nonexistent/firecracker\"\n");
    let home = home(&config);
    a_life(&home);
    // Only this user's daemon can be made to abort.
    deaths_of_the_daemon(&home);
    finish(home, &clean);

    // A user whom udev's group lets use KVM, and who has the helper.
    shell("usermod -aG kvm dev");
    let user = User::new();
    shell("rm /usr/local/bin/firecracker /usr/local/bin/jailer");
    let before = host();
    let home = user.home_with(COMPANION);
    a_life(&home);
    deaths_of_the_helper(&user, &home);
    finish(home, &before);
    drop(user);
    shell("gpasswd -d dev kvm");
    assert_eq!(host(), clean);
}
