//! Root disks that are snapshots of an image: created atomically, removed in reverse order.
//!
//! The snapshots are persistent (Documentation/admin-guide/device-mapper/snapshot.rst): the first
//! chunk is a header, and a file of zeros is an empty snapshot. A chunk is 4 KiB, the block size of
//! the file systems, so that a write copies one block only.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use banger_base::VmId;
use banger_sys::dm::{self, SECTOR, Target};
use banger_sys::loopdev::Access;

use super::kernel::Linux;
use super::mapper::{Wanted, device};
use super::retry::Retry;
use super::{Device, Disks};
use crate::error::{Kind, RootError};
use crate::protocol::{self, Did};

/// Size of a chunk in bytes.
pub const CHUNK: u64 = 4096;
/// Size in bytes of an entry in the exception table, which is one chunk long.
const EXCEPTION: u64 = 16;

/// Minimum size in bytes of the copy-on-write file, so that every chunk of the root disk can
/// change.
pub fn cow_bytes(root_bytes: u64) -> u64 {
    let chunks = root_bytes.div_ceil(CHUNK);
    let tables = chunks / (CHUNK / EXCEPTION) + 1;
    // The header, and one table more than are full.
    (chunks + tables + 2) * CHUNK
}

/// As [`Disks::attach`].
///
/// # Errors
/// Those of [`Disks::attach`].
pub fn attach(
    vm: &VmId,
    image: BorrowedFd<'_>,
    cow: BorrowedFd<'_>,
    root_bytes: u64,
) -> Result<(Did, Device), RootError> {
    Disks::new(&Linux::default()).attach(vm, image, cow, root_bytes)
}

/// The root disk of a VM.
///
/// # Errors
/// ioctl(2).
pub fn find(vm: &VmId) -> Result<Option<Device>, RootError> {
    Disks::new(&Linux::default()).find(vm)
}

/// Opens the root disk of a VM, for a VMM that gets its disks as descriptors.
///
/// # Errors
/// `NotFound`: it is not attached. The kernel does not say, or open(2).
pub fn open(vm: &VmId, access: protocol::Access) -> Result<OwnedFd, RootError> {
    let found = find(vm)?;
    let device = found.ok_or_else(|| {
        RootError::new(Kind::NotFound, format!("the VM {vm} has no copy-on-write device"))
    })?;
    open_device(&device, access)
}

/// Opens a block device by its path, if that is the device with these numbers.
fn open_device(device: &Device, access: protocol::Access) -> Result<OwnedFd, RootError> {
    let at = |error: &io::Error| RootError::on_path("open", &device.path, error);
    let opened = OpenOptions::new()
        .read(true)
        .write(access == protocol::Access::ReadWrite)
        .custom_flags(NOFOLLOW)
        .open(&device.path)
        .map_err(|error| at(&error))?;
    let meta = opened.metadata().map_err(|error| at(&error))?;
    let wanted = rustix::fs::makedev(device.major, device.minor);
    if !meta.file_type().is_block_device() || meta.rdev() != wanted {
        return Err(at(&io::Error::other("it is another device than expected")));
    }
    Ok(opened.into())
}

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// As [`Disks::detach`].
///
/// # Errors
/// Those of [`Disks::detach`].
pub fn detach(vm: &VmId) -> Result<Did, RootError> {
    Disks::new(&Linux::default()).detach(vm)
}

/// As [`Disks::check`].
///
/// # Errors
/// Those of [`Disks::check`].
pub fn check() -> Result<(), RootError> {
    Disks::new(&Linux::default()).check()
}

/// As [`Disks::reload`].
///
/// # Errors
/// Those of [`Disks::reload`].
pub fn reload(vm: &VmId) -> Result<Did, RootError> {
    Disks::new(&Linux::default()).reload(vm)
}

/// Names of all devices of a VM, sorted: device-mapper names and loop device tags.
///
/// # Errors
/// ioctl(2), sysfs(5).
pub fn all_of(vm: &VmId) -> Result<Vec<String>, RootError> {
    Disks::new(&Linux::default()).all_of(vm)
}

/// Names of all devices of all VMs, sorted.
///
/// # Errors
/// ioctl(2), sysfs(5).
pub fn list() -> Result<Vec<String>, RootError> {
    Disks::new(&Linux::default()).list()
}

/// Names of the devices of a root disk.
struct Names {
    image: String,
    cow: String,
    base: String,
    root: String,
}

impl Names {
    fn of(vm: &VmId) -> Self {
        Self {
            image: vm.object_name("image"),
            cow: vm.object_name("cow"),
            base: vm.object_name("base"),
            root: vm.object_name("root"),
        }
    }
}

/// Sizes of image and root disk in sectors.
#[derive(Clone, Copy)]
struct Sizes {
    image: u64,
    root: u64,
}

/// Target types of the devices of a root disk.
const TARGETS: [&str; 3] = ["linear", "zero", "snapshot"];

impl Disks<'_> {
    /// Checks that the kernel can make root disks, and loads the modules for that. A node of
    /// device-mapper proves nothing: programs make one on hosts whose kernel has no such driver.
    ///
    /// # Errors
    /// `HostNotReady`: there is no device-mapper, or a target type is missing.
    pub fn check(&self) -> Result<(), RootError> {
        self.check_targets(&TARGETS)
    }

    /// Creates the root disk of a VM, `root_bytes` long: the image, followed by zeros, and `cow`
    /// with the changed chunks. Reuses existing devices; if the call fails, it removes the devices
    /// that it created.
    ///
    /// # Errors
    /// Unsuitable files or sizes; a device cannot be created, with the errors of the undo.
    pub fn attach(
        &self,
        vm: &VmId,
        image: BorrowedFd<'_>,
        cow: BorrowedFd<'_>,
        root_bytes: u64,
    ) -> Result<(Did, Device), RootError> {
        let sizes = self.sizes(image, root_bytes)?;
        let retry = Retry::new(self.kernel);
        let mut made = Vec::new();
        self.build(&Names::of(vm), (image, cow), sizes, (&retry, &mut made)).map_err(|error| {
            made.into_iter().rev().fold(error, |error, piece| match self.undo(&piece, &retry) {
                Ok(_) => error,
                Err(too) => error.and(too),
            })
        })
    }

    fn sizes(&self, image: BorrowedFd<'_>, root_bytes: u64) -> Result<Sizes, RootError> {
        let facts = self.kernel.file(image);
        let facts = facts.map_err(|error| RootError::system("stat the image", &error))?;
        let sizes = Sizes { image: facts.bytes / SECTOR, root: root_bytes / SECTOR };
        let why = if !(facts.bytes.is_multiple_of(SECTOR) && root_bytes.is_multiple_of(SECTOR)) {
            format!("image and root disk must be multiples of {SECTOR} bytes")
        } else if sizes.image == 0 {
            String::from("the image is empty")
        } else if sizes.image > sizes.root {
            format!("a root disk of {root_bytes} bytes is too small for its image")
        } else {
            return Ok(sizes);
        };
        Err(RootError::new(Kind::BadRequest, why))
    }

    fn build(
        &self,
        names: &Names,
        (image, cow): (BorrowedFd<'_>, BorrowedFd<'_>),
        sizes: Sizes,
        (retry, made): (&Retry<'_>, &mut Vec<Piece>),
    ) -> Result<(Did, Device), RootError> {
        let mut note = |did: Did, piece: Piece| {
            if did == Did::Made {
                made.push(piece);
            }
        };
        let (did, image) = self.loop_attach(&names.image, image, Access::Read)?;
        note(did, Piece::Loop(names.image.clone()));
        let (did, cow) = self.loop_attach(&names.cow, cow, Access::ReadWrite)?;
        note(did, Piece::Loop(names.cow.clone()));
        let base = Wanted {
            name: names.base.clone(),
            table: base_table(&image, sizes),
            access: dm::Access::Read,
        };
        let (did, base) = self.map(&base, retry)?;
        note(did, Piece::Mapped(names.base.clone()));
        let root = Wanted {
            name: names.root.clone(),
            table: vec![snapshot_of(&device(base), &cow, sizes.root)],
            access: dm::Access::ReadWrite,
        };
        let (did, root) = self.map(&root, retry)?;
        Ok((did, device(root)))
    }

    fn undo(&self, piece: &Piece, retry: &Retry<'_>) -> Result<Did, RootError> {
        match piece {
            Piece::Loop(tag) => self.loop_detach_within(tag, retry),
            Piece::Mapped(name) => self.unmap(name, retry),
        }
    }

    /// The root disk of a VM.
    ///
    /// # Errors
    /// ioctl(2).
    pub fn find(&self, vm: &VmId) -> Result<Option<Device>, RootError> {
        let found = self.mapped(&Names::of(vm).root)?;
        Ok(found.filter(|status| status.live).map(|status| device(status.number)))
    }

    /// Reads the file of changes of an attached root disk again if the kernel has marked the
    /// snapshot invalid, which it does when a change cannot be stored. The caller has marked the
    /// file valid before. Processes keep the device open; while its table is replaced, and if the
    /// replacement fails, requests fail as they do on an invalid snapshot.
    ///
    /// # Errors
    /// `NotFound`: it is not attached. ioctl(2), sysfs(5).
    pub fn reload(&self, vm: &VmId) -> Result<Did, RootError> {
        let names = Names::of(vm);
        let absent =
            || RootError::new(Kind::NotFound, format!("the VM {vm} has no copy-on-write device"));
        self.mapped(&names.root)?.filter(|status| status.live).ok_or_else(absent)?;
        let states = self.states(&names.root)?;
        let works = |state: &Target| state.kind == "snapshot" && state.arguments != "Invalid";
        if states.iter().all(works) {
            return Ok(Did::WasThere);
        }
        let base = self.mapped(&names.base)?.ok_or_else(absent)?;
        let cow = self.loop_find(&names.cow)?.ok_or_else(absent)?;
        let sectors = states.iter().map(|state| state.length).sum();
        let retry = Retry::new(self.kernel);
        // A snapshot that replaces another one of the same file takes over its state, so another
        // target comes in between (snapshot_ctr in the kernel's dm-snap.c).
        let error = target(0, sectors, "error", String::new());
        let snapshot = snapshot_of(&device(base.number), &cow, sectors);
        for table in [error, snapshot] {
            let (name, access) = (names.root.clone(), dm::Access::ReadWrite);
            self.activate(&Wanted { name, table: vec![table], access }, &retry)?;
        }
        Ok(Did::Made)
    }

    /// Removes the devices of a VM's root disk in reverse order, and continues after errors. Waits
    /// for devices that are open, for a bounded time in all.
    ///
    /// # Errors
    /// All errors, joined; every other device is removed.
    pub fn detach(&self, vm: &VmId) -> Result<Did, RootError> {
        let names = Names::of(vm);
        let retry = Retry::new(self.kernel);
        let mut result = Ok(Did::WasAbsent);
        // A loop device below a mapped device would only be marked for removal, so it stays until
        // the mapped device is gone.
        let under = |name: &str| matches!(self.mapped(name), Ok(Some(_)));
        result = both(result, self.unmap(&names.root, &retry));
        result = both(result, self.unmap(&names.base, &retry));
        if !under(&names.root) {
            result = both(result, self.loop_detach_within(&names.cow, &retry));
        }
        if !under(&names.base) {
            result = both(result, self.loop_detach_within(&names.image, &retry));
        }
        result
    }

    /// Names of all devices of a VM, in order.
    ///
    /// # Errors
    /// ioctl(2), sysfs(5).
    pub fn all_of(&self, vm: &VmId) -> Result<Vec<String>, RootError> {
        let mut names = self.list()?;
        let prefix = vm.object_name("");
        names.retain(|name| name.starts_with(&prefix));
        Ok(names)
    }

    /// Names of all devices of all VMs, in order.
    ///
    /// # Errors
    /// ioctl(2), sysfs(5).
    pub fn list(&self) -> Result<Vec<String>, RootError> {
        let mut names = self.mapped_names()?;
        names.extend(self.loop_tags()?);
        names.retain(|name| of_a_vm(name));
        names.sort();
        Ok(names)
    }
}

/// A device that an attach created.
enum Piece {
    Loop(String),
    Mapped(String),
}

fn of_a_vm(name: &str) -> bool {
    let id = name.strip_prefix("banger-").and_then(|rest| rest.split_once('-'));
    id.is_some_and(|(id, what)| !what.is_empty() && id.parse::<VmId>().is_ok())
}

fn both(one: Result<Did, RootError>, other: Result<Did, RootError>) -> Result<Did, RootError> {
    match (one, other) {
        (Err(one), Err(other)) => Err(one.and(other)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Ok(Did::Removed), Ok(_)) | (Ok(_), Ok(Did::Removed)) => Ok(Did::Removed),
        (Ok(_), Ok(did)) => Ok(did),
    }
}

fn target(start: u64, length: u64, kind: &str, arguments: String) -> Target {
    Target { start, length, kind: kind.into(), arguments }
}

fn base_table(image: &Device, sizes: Sizes) -> Vec<Target> {
    let over = format!("{}:{} 0", image.major, image.minor);
    let mut table = vec![target(0, sizes.image, "linear", over)];
    if sizes.root > sizes.image {
        table.push(target(sizes.image, sizes.root - sizes.image, "zero", String::new()));
    }
    table
}

fn snapshot_of(base: &Device, cow: &Device, sectors: u64) -> Target {
    let number = |device: &Device| format!("{}:{}", device.major, device.minor);
    let (base, cow) = (number(base), number(cow));
    target(0, sectors, "snapshot", format!("{base} {cow} P {}", CHUNK / SECTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_device_with_these_numbers_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink("/dev/loop0", &link).unwrap();
        let open = |path: &std::path::Path, minor| {
            let device = Device { path: path.into(), major: 7, minor };
            open_device(&device, protocol::Access::Read).map_err(|error| error.causes.join(" "))
        };
        assert!(open(&file, 0).unwrap_err().contains("another device"));
        open(&link, 0).unwrap_err();
        let real = std::path::Path::new("/dev/loop0");
        if std::fs::File::open(real).is_err() {
            eprintln!("SKIPPED in part: no /dev/loop0 that this user may open");
            return;
        }
        open(real, 0).unwrap();
        assert!(open(real, 1).unwrap_err().contains("another device"));
    }
}
