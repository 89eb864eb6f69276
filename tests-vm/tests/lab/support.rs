//! Homes in the lab, and what of the host a test may not leave behind.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use banger_testkit::{Home, Options};
use serde_json::Value;

/// Small VMs: a guest within the lab is emulated twice.
pub const DEFAULTS: &str = "boot_timeout_s = 300\n[vm_defaults]\nvcpus = 1\nmemory = \"256M\"\n\
                            disk_size = \"2G\"\nwork_size = \"1G\"\n";

/// Guests of busybox, which need no processor when they are idle: a whole Debian goes on booting
/// for most of a minute after its agent has answered, and most tests are about the host.
const SMALL: &str = "default_image = \"small\"\n";

/// Prints the type of the root file system, in any guest.
pub const ROOT_TYPE: &str = "awk '$2 == \"/\" { type = $3 } END { print type }' /proc/mounts";

/// Imports the small image, once in a run of the lab; for a test that copies the cache's data
/// before it makes a home.
pub fn import_small_image() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        shell(
            "mkdir -p /var/tmp/small/{bin,sbin,usr/bin,usr/sbin,etc,proc,sys,dev,run,tmp,root,var}
             cd /var/tmp/small
             cp /payload/lab/busybox bin/
             chroot . /bin/busybox --install -s
             printf '::sysinit:/bin/true\n' >etc/inittab
             printf 'NAME=Small\n' >etc/os-release
             printf 'root:x:0:0::/root:/bin/sh\n' >etc/passwd
             printf 'root:x:0:\n' >etc/group
             tar -cf /var/tmp/small.tar .",
        );
        let home = whole("");
        home.ok(&["image", "import", "--name", "small", "/var/tmp/small.tar"]);
        home.finish();
        shell("rm -r /var/tmp/small /var/tmp/small.tar");
    });
}

/// The configuration of a home whose VMs are small.
pub fn small(config: &str) -> String {
    import_small_image();
    format!("{config}{SMALL}{DEFAULTS}")
}

/// Runs a script and expects success; returns its trimmed output.
pub fn shell(script: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let out = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{script}\n{out}\n{printed}");
    out
}

/// Everything of ours that there is on the host, one thing a line. Tests look after every step:
/// from /proc and /sys it takes a fraction of what dmsetup, losetup and their like need here.
pub fn host() -> String {
    let mapped = each("/sys/block", |disk| fs::read_to_string(disk.join("dm/name")).ok());
    let mapped = mapped.into_iter().filter(|name| name.contains("banger"));
    let loops = each("/sys/block", |disk| {
        let file = fs::read_to_string(disk.join("loop/backing_file")).ok()?;
        Some(format!("{}: {file}", disk.file_name()?.display()))
    });
    let loops = loops.into_iter().filter(|line| !line.ends_with("/cache.ext4\n"));
    let links = each("/sys/class/net", |link| Some(link.file_name()?.display().to_string()));
    let others =
        |name: &String| !matches!(name.as_str(), "lo" | "eth0") && !name.starts_with("out-");
    let vmms = each("/proc", |process| {
        let name = fs::read_to_string(process.join("comm")).ok()?;
        let is_vmm = matches!(name.trim_end(), "firecracker" | "jailer");
        is_vmm.then(|| process.display().to_string() + " " + &name)
    });
    let mut lines: Vec<String> = mapped.chain(loops).collect();
    lines.extend(links.into_iter().filter(others));
    lines.push(shell("nft list tables"));
    lines.extend(vmms);
    for (folder, shown) in [
        ("/var/lib/banger-root/vms", Shown::All),
        ("/var/lib/banger-root/jail", Shown::All),
        ("/run/banger-root/leases", Shown::Files),
        ("/sys/fs/cgroup/banger", Shown::Folders),
    ] {
        lines.extend(below(Path::new(folder), shown));
    }
    // The jailer leaves it.
    lines.retain(|line| !line.ends_with("/jail/firecracker"));
    lines
        .iter()
        .map(|line| line.trim_end())
        .filter(|line| !line.is_empty())
        .fold(String::new(), |text, line| text + line + "\n")
}

/// What a function says of each entry of a folder that exists.
fn each(folder: &str, of: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<String> = entries.filter_map(|path| of(&path)).collect();
    all.sort();
    all
}

/// What of a tree is listed.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    All,
    Files,
    Folders,
}

/// Paths below a folder; none if it does not exist, or goes away meanwhile.
fn below(folder: &Path, shown: Shown) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let is_folder = kind.as_ref().is_ok_and(fs::FileType::is_dir);
        let is_file = kind.as_ref().is_ok_and(fs::FileType::is_file);
        if match shown {
            Shown::All => true,
            Shown::Files => is_file,
            Shown::Folders => is_folder,
        } {
            all.push(path.display().to_string());
        }
        if is_folder {
            all.extend(below(&path, shown));
        }
    }
    all.sort();
    all
}

/// A home whose VMs are small; `config` stands before the tables.
pub fn home(config: &str) -> Home {
    Home::with(Options { config: small(config), ..Options::default() })
}

/// The same with a whole Debian in each VM.
pub fn whole(config: &str) -> Home {
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
