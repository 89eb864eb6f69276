//! The cgroups of a VMM and its shim: cgroup v2, the kernel's
//! Documentation/admin-guide/cgroup-v2.rst. The jailer creates the VMM's and does not remove it.
//! The shim has one too, because systemd ends all processes in the cgroup of the helper's unit when
//! that unit is killed (`systemctl kill`) or an earlier unit had another `KillMode`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use banger_base::VmId;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::Did;

/// Time limit for killed processes to end.
const GONE: Duration = Duration::from_secs(10);
/// Interval between checks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Controllers that a VMM's limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The control groups that a host mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchy {
    /// cgroup v2, with these controllers.
    V2(Vec<String>),
    /// Controllers in hierarchies of cgroup v1, with or without cgroup v2 beside them, as systemd's
    /// legacy and hybrid layouts have it.
    V1,
    /// None.
    Absent,
}

impl Hierarchy {
    fn read(root: &Path) -> Self {
        match fs::read_to_string(root.join("cgroup.controllers")) {
            Ok(text) => Self::V2(text.split_whitespace().map(str::to_owned).collect()),
            Err(_) if ["memory", "pids", "systemd"].iter().any(|name| root.join(name).is_dir()) => {
                Self::V1
            }
            Err(_) => Self::Absent,
        }
    }

    fn check(&self, root: &Path) -> Result<String, String> {
        let root = root.display();
        match self {
            Self::V2(has) => {
                let missing = CONTROLLERS.iter().filter(|name| !has.iter().any(|one| one == *name));
                let missing: Vec<String> = missing.map(|name| format!("`{name}`")).collect();
                if missing.is_empty() {
                    return Ok(format!("cgroup v2 with the controllers {}", has.join(", ")));
                }
                let missing = missing.join(" and ");
                Err(format!("the cgroup v2 at `{root}` lacks the controllers {missing}"))
            }
            Self::V1 => Err(format!(
                "`{root}` has the controllers of cgroup v1, and Firecracker's limits need cgroup v2"
            )),
            Self::Absent => Err(format!("no control groups are mounted at `{root}`")),
        }
    }
}

/// Checks the control groups that limit a VMM; returns a description.
///
/// # Errors
/// Why a VMM cannot be limited: cgroup v1, or missing controllers.
pub fn check(places: &Places) -> Result<String, String> {
    Hierarchy::read(&places.cgroups).check(&places.cgroups)
}

/// Whether a VM's cgroup contains processes.
///
/// # Errors
/// read(2), except that there is no cgroup.
pub fn populated(places: &Places, vm: &VmId) -> Result<bool, RootError> {
    let path = places.cgroup(vm).join("cgroup.events");
    match fs::read_to_string(&path) {
        Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
        // The cgroup was removed during the read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(false),
        Err(error) => Err(RootError::on_path("read", &path, &error)),
    }
}

/// Process ids in a VM's cgroup.
///
/// # Errors
/// read(2), except that there is no cgroup.
pub fn processes(places: &Places, vm: &VmId) -> Result<Vec<u32>, RootError> {
    let path = places.cgroup(vm).join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(procs) => Ok(procs.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(Vec::new()),
        Err(error) => Err(RootError::on_path("read", &path, &error)),
    }
}

/// Kills all processes of a cgroup: `cgroup.kill`, or one by one before Linux 5.14.
fn kill_all(cgroup: &Path) -> Result<(), RootError> {
    let kill = cgroup.join("cgroup.kill");
    match fs::OpenOptions::new().write(true).open(&kill).and_then(|mut kill| kill.write_all(b"1")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => kill_each(cgroup),
        other => other.map_err(|error| RootError::on_path("write to", &kill, &error)),
    }
}

/// A VMM cannot start processes, so none is missed.
fn kill_each(cgroup: &Path) -> Result<(), RootError> {
    let path = cgroup.join("cgroup.procs");
    let procs =
        fs::read_to_string(&path).map_err(|error| RootError::on_path("read", &path, &error))?;
    for pid in procs.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                let doing = format!("end process {}", pid.as_raw_nonzero());
                return Err(RootError::system(doing, &error.into()));
            }
        }
    }
    Ok(())
}

/// Kills all processes of a VM's cgroup and waits until it is empty.
///
/// # Errors
/// `Busy`: the cgroup is not empty within the time limit.
pub fn end(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let cgroup = places.cgroup(vm);
    if !populated(places, vm)? {
        return Ok(Did::WasAbsent);
    }
    let deadline = Instant::now() + GONE;
    kill_all(&cgroup)?;
    while populated(places, vm)? {
        if Instant::now() >= deadline {
            let text = format!("processes in `{}` do not end", cgroup.display());
            return Err(RootError::new(Kind::Busy, text));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(Did::Removed)
}

/// Creates the cgroup of a VM's shim, without a controller; `false` if the host has no cgroup v2.
pub fn make_for_shim(places: &Places, vm: &VmId) -> bool {
    // The folder's parent is absent where nothing is mounted.
    places.cgroups.join("cgroup.controllers").exists()
        && fs::create_dir_all(places.shim_cgroup(vm)).is_ok()
}

/// Moves a VM's shim into its cgroup. It may have ended; then its VM ends too.
///
/// # Errors
/// write(2) to `cgroup.procs` (Documentation/admin-guide/cgroup-v2.rst): `ESRCH` if the shim has
/// ended.
pub fn move_shim(cgroup: &Path, shim: u32) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), shim.to_string())
}

/// Removes the cgroups of a VM.
///
/// # Errors
/// A cgroup is not empty.
pub fn remove(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    match (remove_one(&places.cgroup(vm))?, remove_one(&places.shim_cgroup(vm))?) {
        (Did::WasAbsent, did) => Ok(did),
        (did, _) => Ok(did),
    }
}

fn remove_one(cgroup: &Path) -> Result<Did, RootError> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match fs::remove_dir(cgroup) {
            Ok(()) => return Ok(Did::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Did::WasAbsent),
            // A process that was just reaped may still be counted.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if Instant::now() >= deadline {
                    return Err(RootError::on_path("remove", cgroup, &error));
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(error) => return Err(RootError::on_path("remove", cgroup, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_cgroup_v2_with_its_controllers_limits_a_vmm() {
        let check = |folders: &[&str], controllers: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            folders.iter().for_each(|folder| fs::create_dir(root.path().join(folder)).unwrap());
            if let Some(text) = controllers {
                fs::write(root.path().join("cgroup.controllers"), text).unwrap();
            }
            Hierarchy::read(root.path()).check("/sys/fs/cgroup".as_ref())
        };
        let v2 = check(&["system.slice", "user.slice"], Some("cpu io memory pids\n"));
        assert_eq!(v2.unwrap(), "cgroup v2 with the controllers cpu, io, memory, pids");
        let without = check(&[], Some("cpu memory\n")).unwrap_err();
        assert_eq!(without, "the cgroup v2 at `/sys/fs/cgroup` lacks the controllers `pids`");
        // The layouts that systemd calls legacy and hybrid.
        for beside in [&["systemd"][..], &["systemd", "unified"]] {
            let folders = [&["cpu", "memory", "pids"], beside].concat();
            let v1 = check(&folders, None).unwrap_err();
            assert!(v1.contains("cgroup v1"), "{v1}");
        }
        let none = check(&[], None).unwrap_err();
        assert_eq!(none, "no control groups are mounted at `/sys/fs/cgroup`");
    }

    #[test]
    fn processes_are_killed_one_by_one_without_cgroup_kill() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        // This pid cannot exist, so its process counts as gone.
        let procs = format!("{}\n{}\n", child.id(), i32::MAX);
        fs::write(folder.path().join("cgroup.procs"), procs).unwrap();
        kill_all(folder.path()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
