//! A disk without a free byte: a real one, a small tmpfs in a mount namespace of its own.
//!
//! The simulated host's own file is outside of it; everything that the daemon writes is on it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::{Daemon, Home};

/// The namespace; gone with the process that holds it.
struct Disk {
    holder: Child,
    home: Home,
    world: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let home = Home::new();
        std::fs::create_dir_all(home.path()).unwrap();
        let world = home.path().parent().unwrap().join("world.json");
        let script = "mount -t tmpfs -o size=24m,mode=0700 none \"$1\" && echo mounted && \
                      exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(home.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = [0; 7];
        holder.stdout.as_mut().unwrap().read_exact(&mut output).unwrap();
        assert_eq!(&output, b"mounted");
        Self { holder, home, world }
    }

    /// A path in the home, as seen from outside of the namespace.
    fn seen(&self, path: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.home.path().strip_prefix("/").unwrap()).join(path)
    }

    fn start(&self) -> Daemon {
        let plain = self.home.command();
        let mut command = Command::new("nsenter");
        let pid = self.holder.id().to_string();
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &pid]);
        command.arg("--").arg(plain.get_program());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("BANGER_SIM_WORLD", &self.world).stdin(Stdio::null());
        // As the CLI does: standard error goes to the daemon's own log.
        let log = self.seen("state/log/bangerd.log");
        let errors =
            File::options().append(true).open(log).map_or_else(|_| Stdio::null(), Into::into);
        command.stdout(Stdio::piped()).stderr(errors);
        let mut daemon = Daemon::spawn(command, self.seen(""));
        assert_eq!(daemon.first_line(), "ready");
        daemon
    }

    /// Takes every free byte.
    fn fill(&self) {
        let mut file = File::create(self.seen("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        let free = rustix::fs::statvfs(self.seen("")).unwrap().f_bavail;
        assert_eq!(free, 0);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn state(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn vms_are_adopted_stopped_and_deleted_on_a_full_disk() {
    let disk = Disk::new();
    let daemon = disk.start();
    // Names that are no prefix of an id: those are hexadecimal.
    let vms = ["one", "two", "three", "four"];
    for vm in vms {
        daemon.run(vm);
    }
    disk.fill();
    daemon.done("/v1/vms/one/actions", r#"{"stop": {}}"#);
    daemon.done("/v1/vms/one/actions", r#"{"delete": {}}"#);
    // A daemon that was killed, and one that ended in order, both have a successor.
    daemon.kill();
    disk.fill();
    let daemon = disk.start();
    disk.fill();
    assert_eq!((daemon.state("one"), daemon.state("two")), ("gone".into(), "running".into()));
    daemon.done("/v1/vms/two/actions", r#"{"stop": {}}"#);
    daemon.done("/v1/vms/two/actions", r#"{"delete": {}}"#);
    daemon.stop();
    disk.fill();
    let daemon = disk.start();
    disk.fill();
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 2);
    daemon.done("/v1/vms/three/actions", r#"{"delete": {"force": true}}"#);
    daemon.done("/v1/vms/four/actions", r#"{"kill": {}}"#);
    daemon.done("/v1/vms/four/actions", r#"{"delete": {}}"#);
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 0);
    // With room again, the reserve is made again, by the first commit after a while at the latest
    // when the next daemon opens the store.
    std::fs::remove_file(disk.seen("filler")).unwrap();
    daemon.stop();
    let daemon = disk.start();
    assert!(state(&disk.seen("state")).contains(&"banger.reserve".to_owned()));
    daemon.run("five");
    daemon.signal(Signal::TERM);
    daemon.stop();
    let log = std::fs::read_to_string(disk.seen("state/log/bangerd.log")).unwrap();
    assert!(!log.contains("panic"), "{log}");
}
