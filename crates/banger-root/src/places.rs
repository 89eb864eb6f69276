//! Where everything of ours is that belongs to root.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use banger_base::VmId;
use ipnet::Ipv4Net;

/// Folders and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// What must survive a reboot: a folder for each VM, kernels to boot.
    pub state: PathBuf,
    /// What must not: leases, sockets.
    pub run: PathBuf,
    /// The bridge.
    pub bridge: String,
    /// Its network.
    pub network: Ipv4Net,
    /// Idle TAPs that are kept ready.
    pub tap_pool: u32,
    /// Where cgroup2 is mounted.
    pub cgroups: PathBuf,
}

/// Our part of the cgroup tree.
pub const CGROUP: &str = "banger";

impl Default for Places {
    fn default() -> Self {
        Self {
            state: "/var/lib/banger-root".into(),
            run: "/run/banger-root".into(),
            bridge: "br-fc".into(),
            network: Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 24),
            tap_pool: 4,
            cgroups: "/sys/fs/cgroup".into(),
        }
    }
}

impl Places {
    /// Folder of all VMs.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// Folder of a VM, root's.
    pub fn vm(&self, id: &VmId) -> PathBuf {
        self.vms().join(id.as_str())
    }

    /// Leases of addresses, one file for each.
    pub fn leases(&self) -> PathBuf {
        self.run.join("leases")
    }

    /// Who a VM belongs to.
    pub fn owner(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("owner")
    }

    /// Its logs; the files in it are its owner's to read.
    pub fn logs(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("logs")
    }

    /// What the guest said.
    pub fn console_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("console.log")
    }

    /// What the VMM said.
    pub fn vmm_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("vmm.log")
    }

    /// What the shim said, root's alone.
    pub fn shim_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("shim.log")
    }

    /// What the VMM counted, one JSON document a line.
    pub fn metrics_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("metrics.json")
    }

    /// What its shim leaves: root's alone.
    pub fn shim(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("shim")
    }

    /// Where the jailer makes jails.
    pub fn jails(&self) -> PathBuf {
        self.state.join("jail")
    }

    /// The root folder of a VM's jail, `vmm` being the name of the VMM's program.
    pub fn jail(&self, vmm: &str, id: &VmId) -> PathBuf {
        self.jails().join(vmm).join(id.as_str()).join("root")
    }

    /// Kernels and initramfs archives, on the same file system as the jails.
    pub fn boot(&self) -> PathBuf {
        self.state.join("boot")
    }

    /// The VMM's cgroup.
    pub fn cgroup(&self, id: &VmId) -> PathBuf {
        self.cgroups.join(CGROUP).join(id.as_str())
    }
}
