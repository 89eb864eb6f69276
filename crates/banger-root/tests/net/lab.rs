//! A fake host: a network namespace with an uplink, and a second namespace as the outside.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use banger_base::Lease;
use banger_base::VmId;
use banger_root::protocol::Nat;
use banger_root::{Did, Places, net};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::guest::{Guest, NEVER, SOON};

const WITHIN: &str = "BANGER_NET_TEST";
/// Uid of the VMs' owner.
pub const USER: u32 = 1000;
/// The host's address on the uplink, and that of the other end.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const PORT: u16 = 7777;

/// Re-runs the current test in a process with its own network namespace, where it calls `body`.
pub fn in_namespace(name: &str, body: impl FnOnce(&Lab)) {
    if std::env::var_os(WITHIN).is_some() {
        return body(&Lab::new());
    }
    let root = rustix::process::geteuid().is_root();
    let nft = ["/usr/sbin/nft", "/sbin/nft"].iter().any(|path| Path::new(path).exists());
    if !root || !nft || !Path::new("/dev/net/tun").exists() {
        eprintln!(
            "SKIPPED `{name}`: needs root, /dev/net/tun and nftables (scripts/setup.sh test)"
        );
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(WITHIN, "1")
        .status()
        .unwrap();
    assert!(status.success(), "`{name}` in its namespace: {status}");
}

pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}`: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub struct Lab {
    pub places: Places,
    outside: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Ends the namespace, and with it the uplink.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            state: folder.path().join("state"),
            run: folder.path().join("run"),
            ..Places::default()
        };
        // `cat` ends when this process's end of the pipe closes.
        let outside = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = outside.id();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other == own) {
            std::thread::sleep(Duration::from_millis(1));
        }
        sh(&format!(
            "ip link set lo up
            ip link add up0 type veth peer name out0 netns {pid}
            echo 1 > /proc/sys/net/ipv6/conf/up0/disable_ipv6
            ip addr add {HOST}/24 dev up0
            ip link set up0 up
            in_outside() {{ nsenter -t {pid} -n ip \"$@\"; }}
            in_outside link set lo up
            in_outside addr add {OUTSIDE}/24 dev out0
            in_outside link set out0 up
            ip route add default via {OUTSIDE}
            until ip link show up0 | grep -q 'state UP'; do sleep 0.01; done"
        ));
        Self { places, outside, _folder: folder }
    }

    /// Runs a function in the outside namespace.
    pub fn outside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.outside.id())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
                run()
            });
            thread.join().unwrap()
        })
    }

    /// A service in the outside namespace.
    pub fn service(&self) -> Service {
        self.outside(|| Service::bind(&format!("0.0.0.0:{PORT}")))
    }

    pub fn attach(&self, vm: &str, nat: Nat) -> (VmId, Lease) {
        let vm: VmId = vm.parse().unwrap();
        let (_, lease) = net::attach(&self.places, USER, &vm, nat).unwrap();
        (vm, lease)
    }

    pub fn guest(&self, vm: &str, nat: Nat) -> Guest {
        let (vm, lease) = self.attach(vm, nat);
        Guest::new(&vm, &lease)
    }

    pub fn detach(&self, vm: &str) -> Did {
        net::detach(&self.places, &vm.parse().unwrap()).unwrap()
    }

    /// All settings of a host that the network module may change.
    pub fn picture(&self) -> String {
        let leases = self.places.leases();
        sh(&format!(
            "ip -o link show; ip -o addr show; ip route show table all; nft list ruleset
            cat /proc/sys/net/ipv4/ip_forward; ls -A {leases} 2>/dev/null || :
            ls -A {run} 2>/dev/null | grep -vxe net.lock -e leases || :",
            leases = leases.display(),
            run = self.places.run.display(),
        ))
    }
}

/// A UDP service that echoes packets.
pub struct Service(UdpSocket);

impl Service {
    pub fn bind(address: &str) -> Self {
        Self(UdpSocket::bind(address).unwrap())
    }

    fn hears(&self, text: &str, within: Duration) -> Option<std::net::SocketAddr> {
        let mut bytes = [0; 256];
        self.0.set_read_timeout(Some(within)).unwrap();
        loop {
            let (length, from) = self.0.recv_from(&mut bytes).ok()?;
            if &bytes[..length] == text.as_bytes() {
                self.0.send_to(text.as_bytes(), from).unwrap();
                return Some(from);
            }
        }
    }

    /// Waits for a packet with this text and echoes it.
    pub fn must_hear(&self, text: &str) -> std::net::SocketAddr {
        self.hears(text, SOON).unwrap_or_else(|| panic!("`{text}` did not come"))
    }

    pub fn must_not_hear(&self, text: &str) {
        let heard = self.hears(text, NEVER);
        assert!(heard.is_none(), "`{text}` came, from {heard:?}");
    }

    pub fn heard(&self, text: &str) -> bool {
        self.hears(text, NEVER).is_some()
    }

    pub fn say(&self, to: (Ipv4Addr, u16), text: &str) {
        self.0.send_to(text.as_bytes(), to).unwrap();
    }
}
