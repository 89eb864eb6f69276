//! Devices of a VM (drives and a NIC) as data, so that no driver depends on another one, and the
//! abilities of drivers, from which drivers are chosen.

use std::path::PathBuf;

use banger_api::publish::PortForward;
pub use banger_base::{DriveRole, Lease, MacAddress};

/// Backing store of a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveSource {
    /// A file that the daemon's user may open.
    File(PathBuf),
    /// The VM's own block device, which the helper creates and opens.
    Device,
}

impl DriveSource {
    /// Its kind.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::File(_) => SourceKind::File,
            Self::Device => SourceKind::Device,
        }
    }
}

/// A drive of a VM. Its role determines whether the guest may write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Its role.
    pub role: DriveRole,
    /// Its backing store.
    pub source: DriveSource,
}

impl Drive {
    /// A drive backed by a file.
    pub fn file(role: DriveRole, path: impl Into<PathBuf>) -> Self {
        Self { role, source: DriveSource::File(path.into()) }
    }

    /// A drive backed by the VM's block device.
    pub fn device(role: DriveRole) -> Self {
        Self { role, source: DriveSource::Device }
    }
}

/// A VM's network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nic {
    /// A TAP of the host, created by the helper.
    Tap {
        /// Name of the interface on the host.
        name: String,
        /// MAC address of the guest's side.
        mac: MacAddress,
        /// Address of the guest, if it is known.
        lease: Option<Lease>,
    },
    /// A user-space network of the VMM: it contains the gateway and a resolver, and forwards ports
    /// of the host.
    User {
        /// MAC address of the guest's side.
        mac: MacAddress,
        /// Address of the guest, which only the VMM can reach.
        guest: Lease,
        /// Whether the guest reaches networks beyond the host.
        outside: Outside,
        /// Ports that the VMM forwards.
        forwards: Vec<PortForward>,
    },
}

/// Whether a guest reaches networks beyond the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// It reaches them.
    Reached,
    /// It reaches the host only.
    CutOff,
}

impl Nic {
    /// MAC address of the guest's side.
    pub fn mac(&self) -> MacAddress {
        match self {
            Self::Tap { mac, .. } | Self::User { mac, .. } => *mac,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> NicKind {
        match self {
            Self::Tap { .. } => NicKind::Tap,
            Self::User { .. } => NicKind::User,
        }
    }

    /// Network configuration of the guest's interface.
    pub fn address(&self) -> Option<&Lease> {
        match self {
            Self::Tap { lease, .. } => lease.as_ref(),
            Self::User { guest, .. } => Some(guest),
        }
    }
}

/// How a guest identifies its drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveKey {
    /// By serial number: the name of the drive's role.
    Serial,
    /// By their order.
    Order,
}

/// Devices of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// Drives in the order in which the guest sees them.
    pub drives: Vec<Drive>,
    /// How the guest identifies them.
    pub drive_key: DriveKey,
    /// Network interface.
    pub nic: Nic,
}

impl Devices {
    /// Position of a drive in the guest.
    pub fn place(&self, role: DriveRole) -> Option<usize> {
        self.drives.iter().position(|drive| drive.role == role)
    }
}

/// Kinds of [`DriveSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// [`DriveSource::File`].
    File,
    /// [`DriveSource::Device`].
    Device,
}

/// Kinds of [`Nic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicKind {
    /// [`Nic::Tap`].
    Tap,
    /// [`Nic::User`].
    User,
}

/// Whether a driver requires a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It requires it.
    Required,
    /// It does not.
    None,
}

/// Abilities of a VMM driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmmAbilities {
    /// Root privileges: the helper, or a daemon that runs as root.
    pub root: Need,
    /// KVM.
    pub kvm: Need,
    /// Supported network interfaces.
    pub nics: &'static [NicKind],
    /// Supported backing stores of drives.
    pub sources: &'static [SourceKind],
    /// How its guests identify their drives.
    pub drive_key: DriveKey,
}

/// Abilities of a storage driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageAbilities {
    /// Root privileges.
    pub root: Need,
    /// Backing store of the root disk. All other drives are files.
    pub root_disk: SourceKind,
    /// What is in the file of the root disk.
    pub content: RootContent,
}

/// Content of the file of a root disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RootContent {
    /// The changes of the VM, which are of use only with its image.
    #[default]
    Changes,
    /// The whole root file system.
    Whole,
}

/// Abilities of a network driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkAbilities {
    /// Root privileges.
    pub root: Need,
    /// Its kind of network interface.
    pub nic: NicKind,
}
