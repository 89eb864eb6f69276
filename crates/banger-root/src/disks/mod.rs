//! Block devices of VMs: loop devices and device-mapper snapshots.
//!
//! Every object has a name that derives from the VM's id and that the kernel keeps, so what a
//! killed process left is found by its name. Nothing waits for udev, and no node under /dev is
//! needed: devices are told by their numbers.
//!
//! ```text
//!   image, read-only ── loop banger-ID-image ── dm banger-ID-base ─┐
//!   (zeros up to the size of the root disk) ───────────┘           ├─ dm banger-ID-root
//!   what the VM changed ── loop banger-ID-cow ─────────────────────┘
//! ```

pub mod kernel;
pub mod loops;
mod mapper;
mod retry;
pub mod snapshot;

use std::path::PathBuf;

pub use banger_sys::loopdev::Access;
pub use kernel::Kernel;
pub use loops::{loop_attach, loop_detach, loop_find};

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where the kernel's own device file system has it.
    pub path: PathBuf,
    /// Major number, for a node elsewhere.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Block devices, made with this kernel.
pub struct Disks<'k> {
    kernel: &'k dyn Kernel,
}

impl<'k> Disks<'k> {
    /// With this kernel.
    pub fn new(kernel: &'k dyn Kernel) -> Self {
        Self { kernel }
    }
}
