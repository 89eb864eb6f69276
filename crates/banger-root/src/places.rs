//! Where everything of ours is that belongs to root.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::id::Id;

/// Folders and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// What must survive a reboot: a folder for each VM, kernels to boot.
    pub state: PathBuf,
    /// What must not: leases, sockets.
    pub run: PathBuf,
    /// The bridge.
    pub bridge: String,
    /// First address of its network.
    pub subnet: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Idle TAPs that are kept ready.
    pub tap_pool: u32,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            state: "/var/lib/banger-root".into(),
            run: "/run/banger-root".into(),
            bridge: "br-fc".into(),
            subnet: Ipv4Addr::new(172, 16, 0, 0),
            prefix: 24,
            tap_pool: 4,
        }
    }
}

impl Places {
    /// Folder of all VMs.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// Folder of a VM, root's.
    pub fn vm(&self, id: &Id) -> PathBuf {
        self.vms().join(id.as_str())
    }

    /// Leases of addresses, one file for each.
    pub fn leases(&self) -> PathBuf {
        self.run.join("leases")
    }
}
