//! The whole Firecracker driver without KVM: jailer, Firecracker and guest are played by a program,
//! all else is real: root's jail, loop devices, TAP, bridge, filter, leases, shim, API. Each test
//! has a network namespace of its own, which bangerd shares since the CLI starts it from there.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod leftovers;

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_host::vmm::firecracker::api::{Client, ClientError};
use banger_host::vmm::firecracker::schema::Action;
use banger_root::disks::{loop_detach, snapshot};
use banger_testkit::{Home, Options, fake_firecracker, kill, program, wait_gone};
use serde_json::Value;
use tempfile::TempDir;
use tests_vm::crash::{After, through_all_points};

const WITHIN: &str = "BANGER_FIRECRACKER_TEST";
/// What a test would share with its host over Unix sockets, namespace or not, is hidden:
/// systemd-resolved.
const ENTER: &str = "ip link set lo up
test ! -d /run/systemd || mount -t tmpfs tmpfs /run/systemd
exec \"$@\"";
const SMALL: &str = "[vm_defaults]\nvcpus = 1\nmemory = \"128M\"\n";

/// Runs the test again as a process in namespaces of its own, where it runs `body`.
fn in_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(WITHIN).is_some() {
        return body();
    }
    let root = rustix::process::geteuid().is_root();
    let devices = ["/dev/net/tun", "/dev/loop-control"];
    let nft = ["/usr/sbin/nft", "/sbin/nft"].iter().any(|path| Path::new(path).exists());
    if !root || !nft || !devices.iter().all(|path| Path::new(path).exists()) {
        eprintln!(
            "SKIPPED `{name}`: needs root, {} and nftables (scripts/setup.sh test)",
            devices.join(", ")
        );
        return;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-euc", ENTER, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(WITHIN, "1")
        .status()
        .unwrap();
    assert!(status.success(), "`{name}` in its namespace: {status}");
}

/// Root's folders.
struct Root(TempDir);

impl Root {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    /// A test that failed leaves no process and no loop device either.
    fn drop(&mut self) {
        for line in banger_testkit::leftovers(self.path()) {
            let pid = line.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
            if let Some(pid) = pid.and_then(|pid| pid.parse().ok()) {
                kill(pid, "KILL");
                wait_gone(pid);
            }
        }
        for vm in fs::read_dir(self.path().join("state/vms")).into_iter().flatten().flatten() {
            let Ok(id) = vm.file_name().to_string_lossy().parse() else { continue };
            for tag in snapshot::all_of(&id).unwrap_or_default() {
                let _ = loop_detach(&tag);
            }
        }
    }
}

/// A home with root's folders of its own and a Firecracker that is played.
struct World {
    home: Home,
    root: Root,
    vmm: String,
}

impl World {
    fn new(behavior: &str) -> Self {
        Self::with(behavior, "good", "")
    }

    fn with(behavior: &str, jailer: &str, config: &str) -> Self {
        let root = Root(TempDir::with_prefix("bgr-root-").unwrap());
        let programs = root.path().join("programs");
        let vmm = fake_firecracker(&programs, behavior);
        let jailer = fake_firecracker(&programs, jailer);
        let config = format!(
            "firecracker_bin = \"{}\"\njailer_bin = \"{}\"\nvmm = \"firecracker\"\n\
             storage = \"overlay\"\n{config}{SMALL}",
            vmm.display(),
            jailer.display()
        );
        let home = home(&root, config);
        Self { home, root, vmm: vmm.file_name().unwrap().to_str().unwrap().to_owned() }
    }

    /// Another home of the same user, with the same folders of root.
    fn another_home(&self) -> Home {
        home(&self.root, fs::read_to_string(self.home.path().join("config/config.toml")).unwrap())
    }

    fn show(&self, vm: &str) -> Value {
        self.home.json(&["vm", "show", vm])
    }

    fn jail(&self, id: &str) -> PathBuf {
        self.root.path().join("state/jail").join(&self.vmm).join(id)
    }

    /// Everything there is for one run of a VM, one thing a line.
    fn parts(&self, id: &str) -> Vec<String> {
        let mut parts = snapshot::all_of(&id.parse().unwrap()).unwrap();
        parts.extend(links().into_iter().filter(|link| link.contains(id)));
        let paths = [self.jail(id), Path::new("/sys/fs/cgroup/banger").join(id)];
        parts.extend(paths.iter().filter(|path| path.exists()).map(|path| format!("{path:?}")));
        let leases = fs::read_dir(self.root.path().join("run/leases")).into_iter().flatten();
        for lease in leases.flatten() {
            let text = fs::read_to_string(lease.path()).unwrap_or_default();
            if text.contains(id) || lease.file_name().to_string_lossy().contains(id) {
                parts.push(format!("lease {text}"));
            }
        }
        parts
    }

    fn has_all_parts(&self, id: &str) {
        let parts = self.parts(id).join("\n");
        let drives =
            ["root", "work", "image", "modules"].map(|it| format!("banger-{id}-drive-{it}"));
        let others = [format!("fc-{id}"), self.jail(id).display().to_string(), "lease".into()];
        for part in drives.into_iter().chain(others) {
            assert!(parts.contains(&part), "{part} is missing in\n{parts}");
        }
    }

    /// No VM runs: nothing is left of these, and nothing of what VMs share.
    fn nothing_runs(&self, ids: &[String], when: &str) {
        for id in ids {
            assert_eq!(self.parts(id), Vec::<String>::new(), "{when}");
        }
        assert_eq!(links(), ["lo"], "{when}");
        assert_eq!(shell("nft list tables"), "", "{when}");
        // The shim works in the jail, and so does the VMM.
        let mut left = banger_testkit::leftovers(self.root.path());
        left.retain(|line| line.starts_with("process "));
        assert!(left.is_empty(), "{when}: {left:#?}");
    }

    fn finish(self, ids: &[String]) {
        self.nothing_runs(ids, "at the end");
        let vms = fs::read_dir(self.root.path().join("state/vms")).unwrap().count();
        assert_eq!(vms, 0, "root keeps folders of VMs that are gone");
        self.home.finish();
    }
}

fn home(root: &Root, config: String) -> Home {
    let env = [
        ("BANGERD", program("bangerd-test").display().to_string()),
        ("BANGER_ASSUME_KVM", "1".to_owned()),
        ("BANGER_ROOT_DIR", root.path().display().to_string()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value)).into();
    Home::with(Options { config, env, ..Options::default() })
}

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn links() -> Vec<String> {
    let name = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    shell("ip -br link").lines().map(name).collect()
}

fn id(show: &Value) -> String {
    show["id"].as_str().unwrap().to_owned()
}

/// A second start, requested from the VMM itself.
fn start_again(socket: &Path) -> ClientError {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let mut api = Client::new(OwnedFd::from(socket)).await.unwrap();
        api.action(&Action::InstanceStart).await.unwrap_err()
    })
}

/// State of the VMM according to itself.
fn vmm_state(socket: &Path) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = std::os::unix::net::UnixStream::connect(socket).unwrap();
        Client::new(OwnedFd::from(socket)).await.unwrap().instance().await.unwrap().state
    })
}

/// Pauses a VM across a killed daemon, and resumes it; leaves it paused, for the stop that follows.
fn pause_and_resume(home: &Home, socket: &Path) {
    home.ok(&["vm", "pause", "web"]);
    assert_eq!((home.state("web").as_str(), vmm_state(socket).as_str()), ("paused", "Paused"));
    home.kill_daemon();
    assert_eq!((home.state("web").as_str(), vmm_state(socket).as_str()), ("paused", "Paused"));
    let resumed = home.run(&["vm", "resume", "web"]);
    assert_eq!((resumed.out.as_str(), resumed.err.as_str()), ("web resumed\n", ""));
    assert_eq!((home.state("web").as_str(), vmm_state(socket).as_str()), ("running", "Running"));
    home.ok(&["vm", "health", "web"]);
    home.ok(&["vm", "pause", "web"]);
}

/// Publishes and unpublishes a port of a running VM. The guest is simulated, so the test listens on
/// its address.
fn ports_change_while_it_runs(home: &Home, ip: &str) {
    let address = format!("ip address add {ip}/32 dev lo");
    shell(&address);
    let guest = TcpListener::bind((ip, 7000)).unwrap();
    let set = home.run(&["vm", "set", "web", "-p", "18000:7000"]);
    assert_eq!((set.code, set.out.as_str()), (0, "web changed\n"), "{}", set.err);
    let text = "`web` changed while it runs: published ports 127.0.0.1:18000:7000 (was none)";
    assert!(set.err.contains(text), "{}", set.err);
    let mut client = TcpStream::connect("127.0.0.1:18000").unwrap();
    client.write_all(b"hello").unwrap();
    let mut received = [0; 5];
    guest.accept().unwrap().0.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");
    home.ok(&["vm", "set", "web", "--unpublish", "18000"]);
    assert!(TcpStream::connect("127.0.0.1:18000").is_err(), "the port is still published");
    assert_eq!(home.json(&["vm", "show", "web"])["publish"], Value::Array(Vec::new()));
    shell(&address.replace("address add", "address del"));
}

#[test]
fn a_life() {
    in_namespace("a_life", || {
        let world = World::new("good");
        let home = &world.home;
        home.ok(&["vm", "create", "--name", "web"]);
        let show = world.show("web");
        let id = id(&show);
        assert_eq!(show["drivers"]["vmm"], "firecracker", "{show:#}");
        assert_eq!(show["drivers"]["network"], "bridge");
        assert!(show["ip"].as_str().unwrap().starts_with("172.16.0."), "{show:#}");
        world.has_all_parts(&id);
        let pid = show["pid"].as_u64().unwrap();
        let uid = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
        assert_eq!(uid, id.parse::<banger_api::VmId>().unwrap().uid());
        let fault = format!("{:?}", start_again(&world.jail(&id).join("root/api.sock")));
        assert!(fault.contains("not supported after starting"), "{fault}");
        home.ok(&["vm", "health", "web"]);
        ports_change_while_it_runs(home, show["ip"].as_str().unwrap());

        pause_and_resume(home, &world.jail(&id).join("root/api.sock"));

        home.ok(&["vm", "stop", "web"]);
        let because = world.show("web")["stopped_because"].clone();
        assert_eq!(because["how"], "graceful", "{because}");
        world.nothing_runs(std::slice::from_ref(&id), "stopped");

        home.ok(&["vm", "start", "web"]);
        world.has_all_parts(&id);
        home.ok(&["vm", "kill", "web"]);
        world.nothing_runs(std::slice::from_ref(&id), "killed");

        home.ok(&["vm", "start", "web"]);
        kill(u32::try_from(world.show("web")["pid"].as_u64().unwrap()).unwrap(), "KILL");
        home.wait_state("web", "stopped");
        let because = world.show("web")["stopped_because"].clone();
        assert!(because["story"].as_str().unwrap().contains("signal 9"), "{because}");
        world.nothing_runs(std::slice::from_ref(&id), "its VMM was killed");

        home.ok(&["vm", "start", "web"]);
        home.ok(&["vm", "delete", "-f", "web"]);
        world.finish(&[id]);
    });
}

#[test]
fn ten_at_once() {
    in_namespace("ten_at_once", || {
        let world = World::new("good");
        let names: Vec<String> = (0..10).map(|n| format!("vm-{n}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| world.home.ok(&["vm", "create", "--name", name]));
            }
        });
        let shown: Vec<Value> = names.iter().map(|name| world.show(name)).collect();
        let ids: Vec<String> = shown.iter().map(id).collect();
        let mut addresses: Vec<String> = shown.iter().map(|vm| vm["ip"].to_string()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 10, "{addresses:?}");
        ids.iter().for_each(|id| world.has_all_parts(id));
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| world.home.ok(&["vm", "delete", "-f", name]));
            }
        });
        world.finish(&ids);
    });
}

#[test]
fn the_daemon_aborts_at_every_step() {
    in_namespace("the_daemon_aborts_at_every_step", || {
        let world = World::new("good");
        let ids = RefCell::new(Vec::new());
        through_all_points(&world.home, |point, after| {
            let list = world.home.json(&["vm", "list"]);
            ids.borrow_mut().extend(list.as_array().unwrap().iter().map(id));
            if after == After::Running {
                world.has_all_parts(ids.borrow().last().unwrap());
            } else {
                world.nothing_runs(&ids.borrow(), point);
            }
        });
        world.finish(&ids.take());
    });
}

#[test]
fn a_failed_start_is_named_and_leaves_nothing() {
    in_namespace("a_failed_start_is_named_and_leaves_nothing", || {
        let timeout = "boot_timeout_s = 2\n";
        for (vmm, jailer, words) in [
            ("silent", "good", "no hello came"),
            ("broken", "good", "broken as configured"),
            ("collapses", "good", "collapsed as configured"),
            ("dies", "good", "died as configured"),
            ("good", "refuses", "Failed to make the jail, as configured"),
        ] {
            let world = World::with(vmm, jailer, timeout);
            world.home.ok(&["vm", "create", "--name", "web", "--no-start"]);
            let id = id(&world.show("web"));
            let run = world.home.run(&["vm", "start", "web"]);
            assert_ne!(run.code, 0, "{vmm} {jailer}");
            assert!(run.err.contains(words), "{vmm} {jailer}: {}", run.err);
            assert_eq!(world.home.state("web"), "stopped");
            world.nothing_runs(std::slice::from_ref(&id), vmm);
            world.home.ok(&["vm", "delete", "web"]);
            world.finish(&[id]);
        }
    });
}
