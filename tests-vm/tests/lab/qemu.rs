//! QEMU on a host with KVM and the helper, but without Firecracker.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

use banger_testkit::{Home, kill, program};

use crate::support::{
    Outside, ROOT_TYPE, finish, home, host, id, inside, is_stopped, pid, shell, show, small, whole,
};
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
    let script = format!(
        "{ROOT_TYPE}; ip -4 addr show eth0; wget -qO- http://198.51.100.1/; \
         echo work >/root/kept; echo root >/etc/kept; sync"
    );
    let output = inside(home, "web", &script);
    assert!(output.starts_with("ext4\n") && output.contains("172.16.0."), "{output}");
    assert!(output.ends_with("outside"), "{output}");
    // Ended by a signal, not refused.
    let services = "timeout 5 nc 172.16.0.1 22 </dev/null; echo $?";
    assert_eq!(inside(home, "web", services), "143", "the host's services are behind the filter");

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

/// A user who lingers logs out, and logind ends all processes of the session: the VM, which was
/// started in it, and its published port continue, also a port published later.
fn a_logout(home: &Home) {
    shell(
        "mkdir -p /etc/systemd/logind.conf.d
         printf '[Login]\\nKillUserProcesses=yes\\n' >/etc/systemd/logind.conf.d/kill.conf
         systemctl restart systemd-logind
         loginctl enable-linger dev
         runuser -u dev -- sh -c 'umask 077; mkdir -p ~/.ssh; rm -f ~/.ssh/lab
           ssh-keygen -q -t ed25519 -N \"\" -f ~/.ssh/lab
           cp ~/.ssh/lab.pub ~/.ssh/authorized_keys'",
    );
    home.ok(&["daemon", "stop"]);
    let banger = program("banger").display().to_string();
    // A script in a session of its own, which lasts until there are as many scopes of VMs as given.
    // The session is over when its daemon is: a kernel thread of KVM remains in it while QEMU runs.
    let session = |command: &str, scopes: usize| {
        shell(&format!(
            "runuser -u dev -- ssh -T -i /home/dev/.ssh/lab -o StrictHostKeyChecking=accept-new \\
               dev@127.0.0.1 bash -es <<'SESSION'
             export PATH='{}' BANGER_HOME='{}'
             {banger} {command}
             for _ in $(seq 150); do
               units=$(systemctl --user list-units --no-legend 'banger-*.scope')
               [ \"$(grep -c . <<<\"$units\")\" != {scopes} ] || exit 0
               sleep 0.2
             done
             echo \"$units\"; exit 1
SESSION
             for _ in $(seq 150); do
               pgrep -u dev -x bangerd >/dev/null || exit 0
               sleep 0.2
             done
             loginctl session-status; exit 1",
            std::env::var("PATH").unwrap(),
            home.path().display(),
        ))
    };
    let greets = "socat -u -T10 TCP:127.0.0.1:28480 - | head -c 3";
    // With a server for ssh.
    session("vm create --name web --image debian -p 28480:22", 2);
    home.wait_booted("web");
    assert_eq!(shell(greets), "SSH");
    let boot = show(home, "web")["boot_id"].clone();
    assert_eq!(inside(home, "web", "echo here"), "here");
    home.ok(&["vm", "set", "web", "--unpublish", "28480"]);
    home.ok(&["daemon", "stop"]);
    session("vm set web -p 28480:22", 2);
    assert_eq!(shell(greets), "SSH");
    assert_eq!(show(home, "web")["boot_id"], boot);
    let checks = home.run(&["doctor", "--json"]).out;
    let checks: serde_json::Value = serde_json::from_str(&checks).unwrap();
    let logout = checks.as_array().unwrap().iter().find(|check| check["code"] == "logout").unwrap();
    assert_eq!(logout["verdict"], "ok", "{logout:#}");
    home.ok(&["vm", "delete", "-f", "web"]);
    let scopes = "runuser -u dev -- env XDG_RUNTIME_DIR=/run/user/1000 \
                    systemctl --user list-units --no-legend 'banger-*.scope'";
    home.wait_long("the scopes to be gone", || shell(scopes).is_empty());
    shell(
        "loginctl disable-linger dev
         rm -r /etc/systemd/logind.conf.d /home/dev/.ssh
         systemctl restart systemd-logind",
    );
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

/// A file system of its own for the state of a home, unmounted when dropped.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(home: &Home) -> Self {
        let folder = home.path().join("state");
        let at = folder.display();
        shell(&format!(
            "truncate -s 500M /var/tmp/small.img; mkfs.ext4 -q -m 0 /var/tmp/small.img
             mkdir -p {at}; mount -o loop /var/tmp/small.img {at}; chmod 700 {at}
             rmdir {at}/lost+found"
        ));
        Self { folder }
    }

    /// Leaves 12 MiB.
    fn fill(&self) {
        let at = self.folder.display();
        shell(&format!(
            "left=$(df --output=avail -B1M {at} | tail -n 1)
             fallocate -l $((left - 12))M {at}/filler; sync"
        ));
    }

    fn free(&self) {
        std::fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let script = format!("umount {}; rm -f /var/tmp/small.img", self.folder.display());
        let _ = Command::new("bash").args(["-c", &script]).status();
    }
}

/// The kernel gives up a snapshot when the host cannot store a change. The guest is paused, and
/// goes on with all it has written when the host has room again.
#[test]
fn qemu_goes_on_after_the_host_disk_was_full() {
    let before = host();
    let home = whole(&format!("{COMPANION}firecracker_bin = \"/nonexistent/firecracker\"\n"));
    let disk = SmallDisk::mount(&home);
    home.ok(&["vm", "create", "--name", "web"]);
    assert_eq!(show(&home, "web")["drivers"]["storage"], "dm-snapshot");
    let data = "dd if=/dev/urandom of=/dev/shm/data bs=1M count=40 status=none; \
                sha256sum </dev/shm/data";
    let sum = inside(&home, "web", data);
    disk.fill();
    let write = "cp /dev/shm/data /data && sync && sha256sum </data";
    let mut writing = home.spawn(&["exec", "--wait", "ready", "web", "--", "sh", "-c", write]);
    let notices = || show(&home, "web")["notices"].to_string();
    home.wait_long("the guest to be paused", || notices().contains("paused: "));
    assert!(notices().contains("goes on by itself when there is room"), "{}", notices());
    let id = id(&home, "web");
    let state = || shell(&format!("dmsetup status banger-{id}-root"));
    assert!(state().contains("Invalid"), "{}", state());
    // Again and again: between a try to go on and the next failed write the guest runs.
    let health = || home.run(&["vm", "health", "web"]).out;
    home.wait_long("health to name the disk", || health().contains("is full"));
    home.wait_long("doctor to name the disk", || {
        let doctor = home.run(&["doctor", "--json"]).out;
        let parts = ["\"vm.disk\"", "`web` is paused: ", "\"disk.free\""];
        parts.iter().all(|part| doctor.contains(part))
    });
    // A daemon that dies now is replaced by one that does the rest.
    home.kill_daemon();
    disk.free();
    let mut lines = BufReader::new(writing.stdout.take().unwrap()).lines();
    home.wait_long("the guest to go on", || !notices().contains("paused: "));
    assert_eq!(lines.next().unwrap().unwrap(), sum);
    assert_eq!(writing.wait().unwrap().code(), Some(0));
    let again = "echo 3 >/proc/sys/vm/drop_caches; sha256sum </data; dmesg | grep -c 'I/O error'";
    assert_eq!(inside(&home, "web", &format!("{again} || true")), format!("{sum}\n0"));
    assert!(!state().contains("Invalid"), "{}", state());
    // What is on the disk is what the guest wrote, also for another kernel.
    home.ok(&["vm", "kill", "web"]);
    home.ok(&["vm", "start", "web"]);
    assert_eq!(inside(&home, "web", "sha256sum </data"), sum);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.ok(&["daemon", "stop"]);
    drop(disk);
    finish(home, &before);
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
    let home = user.home_with(small(COMPANION));
    a_life(&home);
    deaths_of_the_helper(&user, &home);
    a_logout(&home);
    finish(home, &before);
    drop(user);
    shell("gpasswd -d dev kvm");
    assert_eq!(host(), clean);
}
