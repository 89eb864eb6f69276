//! Block devices of VMs: loop devices and device-mapper snapshots.
//!
//! Every object has a name that derives from the VM's id and is stored in the kernel, so objects of
//! a killed process are found by name. The module neither waits for udev nor needs nodes under
//! /dev: devices are addressed by number.
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
    /// Path of the node in devtmpfs.
    pub path: PathBuf,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Creates and removes block devices.
pub struct Disks<'k> {
    kernel: &'k dyn Kernel,
}

impl<'k> Disks<'k> {
    /// Uses this kernel interface.
    pub fn new(kernel: &'k dyn Kernel) -> Self {
        Self { kernel }
    }
}
