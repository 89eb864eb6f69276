//! Limits and defaults of a VM's resources, checked by the CLI before a request and by the daemon.

use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

use crate::images::{DEFAULT_IMAGE, DEFAULT_KERNEL};
use crate::size::{GIB, MIB, human_size};

/// Maximum number of vCPUs: Firecracker's limit.
pub const MAX_VCPUS: u32 = 32;
/// Minimum memory in MiB, with which the default image boots.
pub const MIN_MEMORY_MIB: u64 = 128;
/// Maximum memory in MiB.
pub const MAX_MEMORY_MIB: u64 = 16 * 1024 * 1024;
/// Minimum size of a disk in bytes.
pub const MIN_DISK_BYTES: u64 = 64 * MIB;
/// Maximum size of a disk in bytes: ext4 with 4 KiB blocks.
pub const MAX_DISK_BYTES: u64 = 16 * 1024 * GIB;

/// A value out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfLimits {
    /// vCPUs.
    #[error("{0} vCPUs: a VM has 1 to {MAX_VCPUS}")]
    Vcpus(u64),
    /// Memory.
    #[error("{0} MiB of memory: a VM has {MIN_MEMORY_MIB} MiB to {most}",
        most = human_size(MAX_MEMORY_MIB * MIB))]
    Memory(u64),
    /// A disk.
    #[error("a {what} of {size}: a disk has {least} to {most}", size = human_size(*.bytes),
        least = human_size(MIN_DISK_BYTES), most = human_size(MAX_DISK_BYTES))]
    Disk {
        /// `root disk` or `work disk`.
        what: &'static str,
        /// The requested size in bytes.
        bytes: u64,
    },
}

/// Checks a number of vCPUs.
///
/// # Errors
/// Outside 1 to [`MAX_VCPUS`].
pub fn check_vcpus(vcpus: u32) -> Result<(), OutOfLimits> {
    if (1..=MAX_VCPUS).contains(&vcpus) { Ok(()) } else { Err(OutOfLimits::Vcpus(vcpus.into())) }
}

/// Checks an amount of memory in MiB.
///
/// # Errors
/// Outside [`MIN_MEMORY_MIB`] to [`MAX_MEMORY_MIB`].
pub fn check_memory_mib(mib: u64) -> Result<(), OutOfLimits> {
    if (MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib) {
        Ok(())
    } else {
        Err(OutOfLimits::Memory(mib))
    }
}

/// Checks the virtual size of a disk in bytes.
///
/// # Errors
/// Outside [`MIN_DISK_BYTES`] to [`MAX_DISK_BYTES`].
pub fn check_disk(what: &'static str, bytes: u64) -> Result<(), OutOfLimits> {
    if (MIN_DISK_BYTES..=MAX_DISK_BYTES).contains(&bytes) {
        Ok(())
    } else {
        Err(OutOfLimits::Disk { what, bytes })
    }
}

/// The sizes of a request to create or change a VM; absent ones are not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// vCPUs.
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Root disk in bytes.
    pub root_bytes: Option<u64>,
    /// Work disk in bytes.
    pub work_bytes: Option<u64>,
}

impl Sizes {
    /// Checks each size.
    ///
    /// # Errors
    /// The first one that is out of bounds.
    pub fn check(&self) -> Result<(), OutOfLimits> {
        self.vcpus.map_or(Ok(()), check_vcpus)?;
        self.memory_mib.map_or(Ok(()), check_memory_mib)?;
        self.root_bytes.map_or(Ok(()), |bytes| check_disk("root disk", bytes))?;
        self.work_bytes.map_or(Ok(()), |bytes| check_disk("work disk", bytes))
    }
}

/// Schema of an optional number within bounds, in the API's document.
fn bounded(text: &str, format: KnownFormat, least: u64, most: u64) -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
        .format(Some(SchemaFormat::KnownFormat(format)))
        .description(Some(text))
        .minimum(Some(least))
        .maximum(Some(most))
        .build()
}

/// Schema of [`Sizes::vcpus`].
pub fn vcpus_schema() -> Object {
    bounded("vCPUs.", KnownFormat::Int32, 1, MAX_VCPUS.into())
}

/// Schema of [`Sizes::memory_mib`].
pub fn memory_schema() -> Object {
    bounded("Memory in MiB.", KnownFormat::Int64, MIN_MEMORY_MIB, MAX_MEMORY_MIB)
}

/// Schema of [`Sizes::root_bytes`].
pub fn root_disk_schema() -> Object {
    let text = "Virtual size of the root disk in bytes.";
    bounded(text, KnownFormat::Int64, MIN_DISK_BYTES, MAX_DISK_BYTES)
}

/// Schema of [`Sizes::work_bytes`].
pub fn work_disk_schema() -> Object {
    let text = "Virtual size of the work disk in bytes.";
    bounded(text, KnownFormat::Int64, MIN_DISK_BYTES, MAX_DISK_BYTES)
}

/// Defaults of a new VM.
///
/// Fields that an older daemon does not send are empty, so that its status can be parsed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct VmDefaults {
    /// Image.
    #[serde(default)]
    pub image: String,
    /// Kernel.
    #[serde(default)]
    pub kernel: String,
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual size of the root disk in bytes.
    pub root_bytes: u64,
    /// Virtual size of the work disk in bytes.
    pub work_bytes: u64,
    /// Whether the guest can reach networks outside of the host.
    #[serde(default)]
    pub nat: bool,
}

impl VmDefaults {
    /// The defaults for a host: vCPUs = CPUs / 4 within 1…4, memory = RAM / 8 within 512 MiB…8 GiB,
    /// disks 8 GiB each (sparse).
    pub fn for_host(cpus: u32, memory_bytes: u64) -> Self {
        Self {
            image: DEFAULT_IMAGE.into(),
            kernel: DEFAULT_KERNEL.into(),
            vcpus: (cpus / 4).clamp(1, 4),
            memory_mib: (memory_bytes / 8 / MIB).clamp(512, 8192),
            root_bytes: 8 * GIB,
            work_bytes: 8 * GIB,
            nat: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        assert!(check_vcpus(0).is_err() && check_vcpus(33).is_err());
        assert!(check_vcpus(1).is_ok() && check_vcpus(32).is_ok());
        assert!(check_memory_mib(127).is_err() && check_memory_mib(128).is_ok());
        assert!(check_memory_mib(u64::MAX).is_err());
        assert!(check_disk("root disk", 0).is_err());
        assert_eq!(
            check_disk("root disk", MIB).unwrap_err().to_string(),
            "a root disk of 1 MiB: a disk has 64 MiB to 16 TiB"
        );
    }

    #[test]
    fn defaults_depend_on_the_host() {
        let small = VmDefaults::for_host(2, GIB);
        assert_eq!((small.vcpus, small.memory_mib), (1, 512));
        let large = VmDefaults::for_host(64, 512 * GIB);
        assert_eq!((large.vcpus, large.memory_mib), (4, 8192));
        let middle = VmDefaults::for_host(12, 24 * GIB);
        assert_eq!((middle.vcpus, middle.memory_mib), (3, 3072));
    }
}
