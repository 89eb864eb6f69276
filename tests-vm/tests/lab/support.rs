//! Homes in the lab, and what of the host a test may not leave behind.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use banger_testkit::{Home, Options};
use serde_json::Value;

/// Small VMs: a guest within the lab is emulated twice.
pub const DEFAULTS: &str = "boot_timeout_s = 300\n[vm_defaults]\nvcpus = 1\nmemory = \"256M\"\n\
                            disk_size = \"2G\"\nwork_size = \"1G\"\n";

/// Runs a script and expects success; returns its trimmed output.
pub fn shell(script: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let out = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{script}\n{out}\n{printed}");
    out
}

/// Everything of ours that there is on the host, one thing a line.
pub fn host() -> String {
    shell(
        "dmsetup ls --exec echo 2>/dev/null | grep banger || true
         dmsetup ls | grep banger | cut -f1 || true
         losetup -a | cut -d: -f1,3- | grep -v /cache.ext4 || true
         ip -br link | awk '{print $1}' | grep -v -E '^(lo|eth0|out-)' || true
         nft list tables
         pgrep -a firecracker || true
         pgrep -a jailer || true
         find /var/lib/banger-root/vms /var/lib/banger-root/jail -mindepth 1 \
           -not -path '*/jail/firecracker' 2>/dev/null || true
         find /run/banger-root/leases -type f 2>/dev/null || true
         find /sys/fs/cgroup/banger -mindepth 1 -type d 2>/dev/null || true",
    )
}

/// A home whose VMs are small; `config` stands before the tables.
pub fn home(config: &str) -> Home {
    Home::with(Options { config: format!("{config}{DEFAULTS}"), ..Options::default() })
}

/// Ends a home and checks that host and home are as they were.
pub fn finish(home: Home, before: &str) {
    home.finish();
    assert_eq!(host(), before);
}

pub fn show(home: &Home, vm: &str) -> Value {
    home.json(&["vm", "show", vm])
}

/// Runs a script in a guest and expects success; returns its trimmed output.
pub fn inside(home: &Home, vm: &str, script: &str) -> String {
    home.ok(&["exec", "--wait", "ready", vm, "--", "sh", "-c", script]).trim().to_owned()
}

pub fn pid(home: &Home, vm: &str) -> u32 {
    u32::try_from(show(home, vm)["pid"].as_u64().unwrap()).unwrap()
}

pub fn id(home: &Home, vm: &str) -> String {
    show(home, vm)["id"].as_str().unwrap().to_owned()
}

/// The parts of a VM that are on the host while it runs, each of which must be there.
pub fn has_all_parts(id: &str) {
    let now = host();
    for part in [
        format!("banger-{id}-root"),
        format!("banger-{id}-base"),
        format!("fc-{id}"),
        format!("/var/lib/banger-root/jail/firecracker/{id}/root"),
        format!("/var/lib/banger-root/vms/{id}/owner"),
        format!("/sys/fs/cgroup/banger/{id}"),
        format!("/sys/fs/cgroup/banger/shim-{id}"),
        "table inet banger".to_owned(),
        "table bridge banger".to_owned(),
    ] {
        assert!(now.contains(&part), "{part} is missing in\n{now}");
    }
}

/// What a stopped VM has on the host: root's folder of it, and nothing else.
pub fn is_stopped(id: &str) {
    let now = host();
    let left: Vec<&str> = now
        .lines()
        .filter(|line| line.contains(id) && !line.starts_with("/var/lib/banger-root/vms/"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// Where evidence goes: comes out of the lab with its verdict.
pub fn out(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("LAB_OUT").unwrap()).join(name)
}

/// A host beyond the lab, in a network namespace, that answers HTTP on 198.51.100.1.
pub struct Outside;

impl Outside {
    pub fn new() -> Self {
        shell(
            "ip netns add outside
             ip link add out-here type veth peer name out-there netns outside
             ip address add 198.51.100.2/24 dev out-here
             ip link set out-here up
             ip -n outside address add 198.51.100.1/24 dev out-there
             ip -n outside link set out-there up
             ip -n outside link set lo up
             printf 'HTTP/1.0 200 OK\\r\\n\\r\\noutside\\n' >/tmp/outside
             (ip netns exec outside socat TCP-LISTEN:80,fork,reuseaddr \
               SYSTEM:'cat /tmp/outside' >/dev/null 2>&1 & echo $! >/tmp/outside.pid) </dev/null",
        );
        Self
    }

    /// Makes it the host's resolver too: it knows `outside.example` as 203.0.113.7.
    pub fn answer_names(&self) {
        let (sender, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let space = fs::File::open("/run/netns/outside").unwrap();
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(space.as_fd(), Some(kind)).unwrap();
            let socket = UdpSocket::bind("198.51.100.1:53").unwrap();
            sender.send(()).unwrap();
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&dns_answer(&query[..length]), from);
            }
        });
        ready.recv().unwrap();
        shell(
            "resolvectl domain out-here '~.'; resolvectl dns out-here 198.51.100.1
             resolvectl dns eth0 ''",
        );
    }
}

/// RFC 1035: the question again, and for `outside.example` A (1) its address; else no such name.
fn dns_answer(query: &[u8]) -> Vec<u8> {
    let name = b"\x07outside\x07example\0";
    let known = query.get(12..).is_some_and(|rest| rest.starts_with(name));
    let end = 12 + name.len() + 4;
    let a = query.get(end - 4..end) == Some(&[0, 1, 0, 1]);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(known && a)]);
    answer.extend([0; 4]);
    // What comes after the question (EDNS) is left out.
    let question = query[12..].iter().position(|byte| *byte == 0).map_or(12, |at| 12 + at + 5);
    answer.extend(&query[12..question.min(query.len())]);
    if known && a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
    }
    answer
}

impl Drop for Outside {
    fn drop(&mut self) {
        let script = "ip netns pids outside | xargs -r kill -9; ip netns delete outside; \
                      ip link delete out-here 2>/dev/null || true
                      resolvectl revert eth0 || true";
        let _ = Command::new("bash").args(["-c", script]).status();
        let _ = fs::remove_file("/tmp/outside");
    }
}
