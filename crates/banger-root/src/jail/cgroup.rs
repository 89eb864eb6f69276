//! The cgroup that the jailer puts a VMM into: cgroup v2, the kernel's
//! Documentation/admin-guide/cgroup-v2.rst. The jailer leaves it behind.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use crate::error::{Kind, RootError};
use crate::id::Id;
use crate::places::Places;
use crate::words::Did;

/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Kills whatever is in a VM's cgroup and waits until it is empty.
///
/// # Errors
/// It does not get empty.
pub fn end(places: &Places, vm: &Id) -> Result<Did, RootError> {
    let cgroup = places.cgroup(vm);
    let populated = || {
        let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    };
    if !populated() {
        return Ok(Did::WasAbsent);
    }
    let kill = cgroup.join("cgroup.kill");
    fs::write(&kill, "1").map_err(|error| RootError::on_path("write to", &kill, &error))?;
    let deadline = Instant::now() + GONE;
    while populated() {
        if Instant::now() >= deadline {
            let text = format!("processes in `{}` do not end", cgroup.display());
            return Err(RootError::new(Kind::Busy, text));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(Did::Removed)
}

/// Removes a VM's cgroup.
///
/// # Errors
/// There is still something in it.
pub fn remove(places: &Places, vm: &Id) -> Result<Did, RootError> {
    let cgroup = places.cgroup(vm);
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match fs::remove_dir(&cgroup) {
            Ok(()) => return Ok(Did::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Did::WasAbsent),
            // A process that was reaped a moment ago may still be counted.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if Instant::now() >= deadline {
                    return Err(RootError::on_path("remove", &cgroup, &error));
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(error) => return Err(RootError::on_path("remove", &cgroup, &error)),
        }
    }
}
