//! Root disks that are a snapshot of an image: made whole or not at all, taken apart in reverse.
//!
//! The snapshot is persistent (Documentation/admin-guide/device-mapper/snapshot.rst): its first
//! chunk says so, and a file of zeros is a blank one. Its chunks are 4 KiB, the block size of the
//! file systems on it, so that a change never copies more than itself.

use std::os::fd::BorrowedFd;

use banger_base::VmId;
use banger_sys::dm::{self, SECTOR, Target};
use banger_sys::loopdev::Access;

use super::kernel::Linux;
use super::mapper::{Wanted, device};
use super::retry::Retry;
use super::{Device, Disks};
use crate::error::{Kind, RootError};
use crate::words::Did;

/// Bytes of a chunk.
pub const CHUNK: u64 = 4096;
/// Bytes of an entry in the table of changed chunks, of which a chunk is filled at a time.
const EXCEPTION: u64 = 16;

/// Bytes that the file of changes must have so that every chunk of the root disk may change.
pub fn cow_bytes(root_bytes: u64) -> u64 {
    let chunks = root_bytes.div_ceil(CHUNK);
    let tables = chunks / (CHUNK / EXCEPTION) + 1;
    // The header, and a table that is begun when the last is full.
    (chunks + tables + 2) * CHUNK
}

/// Makes the root disk of a VM, as [`Disks::attach`] says.
///
/// # Errors
/// As there.
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
/// The kernel does not say.
pub fn find(vm: &VmId) -> Result<Option<Device>, RootError> {
    Disks::new(&Linux::default()).find(vm)
}

/// Takes the root disk of a VM apart, as [`Disks::detach`] says.
///
/// # Errors
/// As there.
pub fn detach(vm: &VmId) -> Result<Did, RootError> {
    Disks::new(&Linux::default()).detach(vm)
}

/// Names of all devices of a VM, in order: of device-mapper, and tags of loop devices.
///
/// # Errors
/// The kernel does not say.
pub fn all_of(vm: &VmId) -> Result<Vec<String>, RootError> {
    Disks::new(&Linux::default()).all_of(vm)
}

/// Names of all devices of all VMs, in order.
///
/// # Errors
/// The kernel does not say.
pub fn list() -> Result<Vec<String>, RootError> {
    Disks::new(&Linux::default()).list()
}

/// The parts of a root disk.
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

/// Sectors of image and root disk.
#[derive(Clone, Copy)]
struct Sizes {
    image: u64,
    root: u64,
}

impl Disks<'_> {
    /// Makes the root disk of a VM, `root_bytes` long: the image, then zeros, and over both what
    /// `cow` holds of changes. What is there already is taken; what this call made is undone if it
    /// fails.
    ///
    /// # Errors
    /// Files or a size that do not fit; a piece that cannot be made, with what could not be undone.
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
        let facts = facts.map_err(|error| RootError::system("look at the image", &error))?;
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
    /// The kernel does not say.
    pub fn find(&self, vm: &VmId) -> Result<Option<Device>, RootError> {
        let found = self.mapped(&Names::of(vm).root)?;
        Ok(found.filter(|status| status.live).map(|status| device(status.numbers)))
    }

    /// Takes the root disk of a VM apart, in reverse and past errors. Devices that somebody has
    /// open are waited for, all of them together for a bounded time.
    ///
    /// # Errors
    /// All that failed, in one; whatever can be removed is removed.
    pub fn detach(&self, vm: &VmId) -> Result<Did, RootError> {
        let names = Names::of(vm);
        let retry = Retry::new(self.kernel);
        let mut result = Ok(Did::WasAbsent);
        // A loop device under a mapped one would only be marked to go some day, so it stays until
        // the mapped one is gone.
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
    /// The kernel does not say.
    pub fn all_of(&self, vm: &VmId) -> Result<Vec<String>, RootError> {
        let mut names = self.list()?;
        let prefix = vm.object_name("");
        names.retain(|name| name.starts_with(&prefix));
        Ok(names)
    }

    /// Names of all devices of all VMs, in order.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn list(&self) -> Result<Vec<String>, RootError> {
        let mut names = self.mapped_names()?;
        names.extend(self.loop_tags()?);
        names.retain(|name| of_a_vm(name));
        names.sort();
        Ok(names)
    }
}

/// Something that an attach made.
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
    let numbers = |device: &Device| format!("{}:{}", device.major, device.minor);
    let (base, cow) = (numbers(base), numbers(cow));
    target(0, sectors, "snapshot", format!("{base} {cow} P {}", CHUNK / SECTOR))
}
