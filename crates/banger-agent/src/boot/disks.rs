//! Finding the virtio disks the host meant.

use std::fs;
use std::io;
use std::time::Duration;

use banger_agent_proto::boot::DiskRef;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::fault::{Context, Fault};

/// How long a disk may take to appear after the drivers are loaded.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);

/// A block device of this guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `vda`.
    pub name: String,
}

impl Disk {
    /// `/dev/vda`.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Size in bytes; the kernel counts sectors of 512 bytes whatever the device's own are.
    pub fn size_bytes(&self) -> Option<u64> {
        let sectors = fs::read_to_string(format!("/sys/class/block/{}/size", self.name)).ok()?;
        sectors.trim().parse::<u64>().ok()?.checked_mul(512)
    }
}

/// Finds `wanted`, waiting for the kernel to announce it if it is not there yet.
///
/// # Errors
/// No such disk after [`APPEAR_TIMEOUT`].
pub fn find(wanted: &DiskRef) -> Result<Disk, Fault> {
    if let Some(disk) = look(wanted) {
        return Ok(disk);
    }
    let named = match wanted {
        DiskRef::Serial(serial) => format!("disk with serial `{serial}`"),
        DiskRef::Index(index) => format!("virtio disk number {index}"),
    };
    let arrived = wait_for(wanted).context(|| format!("cannot wait for the {named}"))?;
    arrived.ok_or_else(|| Fault::new(format!("the guest has no {named}")))
}

fn look(wanted: &DiskRef) -> Option<Disk> {
    let names = fs::read_dir("/sys/block").ok()?;
    let names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let serial_of =
        |name: &str| fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default();
    let name = select(wanted, names.collect(), serial_of)?;
    let disk = Disk { name };
    // The node follows the announcement by a moment.
    fs::exists(disk.path()).unwrap_or(false).then_some(disk)
}

/// Picks the disk among the names in /sys/block.
fn select(
    wanted: &DiskRef,
    names: Vec<String>,
    serial_of: impl Fn(&str) -> String,
) -> Option<String> {
    let mut names: Vec<String> = names.into_iter().filter(|name| name.starts_with("vd")).collect();
    match wanted {
        DiskRef::Serial(serial) => names.into_iter().find(|name| serial_of(name).trim() == serial),
        DiskRef::Index(index) => {
            // vdz comes before vdaa.
            names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
            names.into_iter().nth(usize::from(*index))
        }
    }
}

/// Waits for kernel announcements of devices (`NETLINK_KOBJECT_UEVENT`, group 1).
fn wait_for(wanted: &DiskRef) -> io::Result<Option<Disk>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(KOBJECT_UEVENT),
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    let deadline = clock_gettime(ClockId::Monotonic).tv_sec + APPEAR_TIMEOUT.as_secs() as i64;
    loop {
        // After subscribing and after each announcement: nothing can be missed in between.
        if let Some(disk) = look(wanted) {
            return Ok(Some(disk));
        }
        let left = deadline - clock_gettime(ClockId::Monotonic).tv_sec;
        if left <= 0 {
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout))? > 0 {
            let mut announcement = [0; 4096];
            rustix::net::recv(&socket, &mut announcement, RecvFlags::DONTWAIT)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["vdb", "loop0", "vda", "vdaa", "sda", "vdz"].map(String::from).to_vec()
    }

    #[test]
    fn by_position() {
        let at = |index| select(&DiskRef::Index(index), names(), |_| String::new());
        assert_eq!(at(0).as_deref(), Some("vda"));
        assert_eq!(at(1).as_deref(), Some("vdb"));
        assert_eq!(at(3).as_deref(), Some("vdaa"));
        assert_eq!(at(4), None);
    }

    #[test]
    fn by_serial() {
        let serial = |name: &str| if name == "vdb" { "work\n".into() } else { String::new() };
        let find = |wanted: &str| select(&DiskRef::Serial(wanted.into()), names(), serial);
        assert_eq!(find("work").as_deref(), Some("vdb"));
        assert_eq!(find("root"), None);
    }
}
