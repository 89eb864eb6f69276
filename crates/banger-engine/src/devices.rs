//! What storage and network give to a VMM: drives and a NIC, as data, so that no driver needs to
//! know another one; and what each driver needs and takes, which the choice of drivers reads.

use std::path::PathBuf;

use banger_api::publish::PortForward;
pub use banger_base::{DriveRole, Lease, MacAddress};

/// Where the bytes of a drive are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveSource {
    /// In a file that the daemon's user may open.
    File(PathBuf),
    /// On the VM's own block device, which root made and opens.
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

/// A drive of a VM. Its role says whether the guest may write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// What it is for.
    pub role: DriveRole,
    /// Where its bytes are.
    pub source: DriveSource,
}

impl Drive {
    /// A drive whose bytes are in a file.
    pub fn file(role: DriveRole, path: impl Into<PathBuf>) -> Self {
        Self { role, source: DriveSource::File(path.into()) }
    }

    /// The drive that is the VM's block device.
    pub fn device(role: DriveRole) -> Self {
        Self { role, source: DriveSource::Device }
    }
}

/// A VM's network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nic {
    /// A TAP of the host, made by root.
    Tap {
        /// Name of the interface on the host.
        name: String,
        /// MAC address of the guest's side.
        mac: MacAddress,
        /// Address of the guest, once it has one.
        lease: Option<Lease>,
    },
    /// A network in user space that the VMM itself is: it has the gateway and a resolver in it, and
    /// forwards ports of the host.
    User {
        /// MAC address of the guest's side.
        mac: MacAddress,
        /// Address of the guest, which nobody but the VMM can reach.
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
    /// It does.
    Reached,
    /// It does not.
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

    /// What the guest configures its interface with.
    pub fn address(&self) -> Option<&Lease> {
        match self {
            Self::Tap { lease, .. } => lease.as_ref(),
            Self::User { guest, .. } => Some(guest),
        }
    }
}

/// How a guest finds out which of its drives is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveKey {
    /// By the serial number, which is the word of the drive's role.
    Serial,
    /// By the order in which it sees them.
    Order,
}

/// Everything that a VM is given for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// Drives in the order in which the guest sees them.
    pub drives: Vec<Drive>,
    /// How the guest tells them apart.
    pub drive_key: DriveKey,
    /// Network interface.
    pub nic: Nic,
}

impl Devices {
    /// Place of a drive among those that the guest sees.
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

/// Whether a driver works only where something is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It does not work without.
    Required,
    /// It does.
    None,
}

/// What a VMM driver needs and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmmAbilities {
    /// Root: the helper, or a daemon that is root.
    pub root: Need,
    /// KVM.
    pub kvm: Need,
    /// Network interfaces that it can give a guest.
    pub nics: &'static [NicKind],
    /// Where the bytes of its drives may be.
    pub sources: &'static [SourceKind],
    /// How its guests tell their drives apart.
    pub drive_key: DriveKey,
}

/// What a storage driver needs and yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageAbilities {
    /// Root.
    pub root: Need,
    /// Where the bytes of the root disk are. All other drives are files.
    pub root_disk: SourceKind,
}

/// What a network driver needs and yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkAbilities {
    /// Root.
    pub root: Need,
    /// Its network interfaces.
    pub nic: NicKind,
}
