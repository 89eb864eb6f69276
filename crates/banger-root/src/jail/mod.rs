//! A VM's jail: the folder that is the VMM's root directory, with kernel, devices and sockets.
//!
//! The folder belongs to the VM's uid while the VMM runs, so its content is untrusted afterwards:
//! existing files are opened without following links, and a new jail is a new folder.

mod boot_files;
mod cgroup;
mod folder;
mod sockets;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::lchown;
use std::os::unix::net::UnixListener;
use std::path::Path;

use banger_base::VmId;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

pub use cgroup::{
    check as check_cgroups, end as end_cgroup, make_for_shim, move_shim, populated, processes,
    remove as remove_cgroup,
};
pub use folder::{all as folders, find};
pub use sockets::{close_hello, connect};

use crate::disks::{Access, Device, loop_attach, loop_detach, snapshot};
use crate::error::{Kind, RootError};
use crate::owner::make_folder;
use crate::places::Places;
use crate::protocol::{Did, Drive, DriveFrom, Role, node};

/// Name of the kernel in a jail.
pub const KERNEL: &str = "vmlinux";
/// Name of the boot initramfs in a jail.
pub const INITRAMFS: &str = "initramfs";
/// Firecracker's API socket.
pub const API: &str = "api.sock";
/// Socket of its vsock device.
pub const VSOCK: &str = "v.sock";
/// Socket for connections of the guest to the host: Firecracker appends the port (docs/vsock.md).
pub const HELLO: &str = "v.sock_10789";
/// FIFO that Firecracker writes its log to.
pub const LOG: &str = "log.fifo";
/// FIFO that Firecracker writes its metrics to.
pub const METRICS: &str = "metrics.fifo";
/// All roles a drive can have.
const ROLES: [Role; 4] = [Role::Root, Role::Work, Role::Image, Role::Modules];

/// Content of a jail.
pub struct Wanted {
    /// Kernel, open for reading.
    pub kernel: OwnedFd,
    /// Boot initramfs, open for reading.
    pub initramfs: OwnedFd,
    /// Drives in order; a descriptor for each that is backed by a file.
    pub drives: Vec<(Drive, Option<OwnedFd>)>,
}

/// Creates a jail, replacing an existing one, and listens for the guest's hello in it.
///
/// # Errors
/// Those of the system calls; [`clear`] removes a partly created jail.
pub fn make(
    places: &Places,
    (owner, vmm): (u32, &str),
    vm: &VmId,
    wanted: &Wanted,
) -> Result<UnixListener, RootError> {
    let root = places.jail(vmm, vm);
    folder::remove(places, vm)?;
    make_folder(&root)?;
    give(&root, vm)?;
    for (file, name) in [(&wanted.kernel, KERNEL), (&wanted.initramfs, INITRAMFS)] {
        boot_files::link(places, owner, file, &root.join(name))?;
    }
    for (drive, file) in &wanted.drives {
        let device = device(vm, drive, file.as_ref())?;
        make_node(&root.join(node(drive.role)), vm, &device)?;
    }
    for name in [LOG, METRICS] {
        let fifo = root.join(name);
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| RootError::on_path("make", &fifo, &error.into()))?;
        give(&fifo, vm)?;
    }
    let socket = root.join(HELLO);
    let listener = banger_sys::unix_path::bind(&socket)
        .map_err(|error| RootError::on_path("listen on", &socket, &error))?;
    give(&socket, vm)?;
    Ok(listener)
}

/// The block device of a drive.
fn device(vm: &VmId, drive: &Drive, file: Option<&OwnedFd>) -> Result<Device, RootError> {
    let access = if drive.role.writable() { Access::ReadWrite } else { Access::Read };
    match (drive.from, file) {
        (DriveFrom::File, Some(file)) => {
            Ok(loop_attach(&tag(vm, drive.role), file.as_fd(), access)?.1)
        }
        (DriveFrom::File, None) => {
            let text =
                format!("the request has no descriptor for the {} drive", drive.role.as_str());
            Err(RootError::new(Kind::BadRequest, text))
        }
        (DriveFrom::Snapshot, _) => snapshot::find(vm)?.ok_or_else(|| {
            RootError::new(Kind::NotFound, format!("the VM {vm} has no copy-on-write device"))
        }),
    }
}

/// The tag of a drive's loop device; different from the tags of a snapshot's loop devices.
fn tag(vm: &VmId, role: Role) -> String {
    vm.object_name(&format!("drive-{}", role.as_str()))
}

fn give(path: &Path, vm: &VmId) -> Result<(), RootError> {
    lchown(path, Some(vm.uid()), Some(vm.uid()))
        .map_err(|error| RootError::on_path("change the owner of", path, &error))
}

fn make_node(path: &Path, vm: &VmId, device: &Device) -> Result<(), RootError> {
    let mode = Mode::RUSR | Mode::WUSR;
    let number = makedev(device.major, device.minor);
    mknodat(CWD, path, FileType::BlockDevice, mode, number)
        .map_err(|error| RootError::on_path("create the device node", path, &error.into()))?;
    give(path, vm)
}

/// Removes a jail with its loop devices and cgroup; continues after errors. The VMM must have
/// ended.
///
/// # Errors
/// All errors, joined.
pub fn clear(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let mut did = Did::WasAbsent;
    let mut failed: Option<RootError> = None;
    let mut note = |result: Result<Did, RootError>| match result {
        Ok(Did::Removed) => did = Did::Removed,
        Ok(_) => {}
        Err(error) => {
            failed = Some(match failed.take() {
                Some(first) => first.and(error),
                None => error,
            });
        }
    };
    note(folder::remove(places, vm));
    for role in ROLES {
        note(loop_detach(&tag(vm, role)));
    }
    note(remove_cgroup(places, vm));
    failed.map_or(Ok(did), Err)
}
