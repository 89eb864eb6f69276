//! Paths and names of everything that the helper owns on the host.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use banger_base::VmId;
use ipnet::Ipv4Net;

/// Folders and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Folder of files that survive a reboot: a folder for each VM, boot files.
    pub state: PathBuf,
    /// Folder of files that do not: leases, sockets.
    pub run: PathBuf,
    /// Name of the bridge.
    pub bridge: String,
    /// Subnet of the bridge.
    pub network: Ipv4Net,
    /// Number of idle TAPs in the pool.
    pub tap_pool: u32,
    /// Mount point of cgroup2.
    pub cgroups: PathBuf,
}

/// banger's part of the cgroup tree.
pub const CGROUP: &str = "banger";
/// File in the log folder of a VM with the output of its shim.
pub const SHIM_LOG: &str = "shim.log";

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

    /// Folder of a VM, owned by root.
    pub fn vm(&self, id: &VmId) -> PathBuf {
        self.vms().join(id.as_str())
    }

    /// Folder of leases, one file each.
    pub fn leases(&self) -> PathBuf {
        self.run.join("leases")
    }

    /// File with the uid of a VM's owner.
    pub fn owner(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("owner")
    }

    /// File with the state folder of the daemon that a VM belongs to.
    pub fn home(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("home")
    }

    /// Log folder of a VM; its owner can read the files.
    pub fn logs(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("logs")
    }

    /// Console output of the guest.
    pub fn console_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("console.log")
    }

    /// Output of the VMM.
    pub fn vmm_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("vmm.log")
    }

    /// Output of the shim.
    pub fn shim_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join(SHIM_LOG)
    }

    /// Metrics of the VMM, one JSON document per line.
    pub fn metrics_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("metrics.json")
    }

    /// Folder of the VM's shim, accessible to root only.
    pub fn shim(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("shim")
    }

    /// Folder in which the jailer creates jails.
    pub fn jails(&self) -> PathBuf {
        self.state.join("jail")
    }

    /// Root folder of a VM's jail; `vmm` is the file name of the VMM's program.
    pub fn jail(&self, vmm: &str, id: &VmId) -> PathBuf {
        self.jails().join(vmm).join(id.as_str()).join("root")
    }

    /// Folder of kernels and initramfs archives, on the same file system as the jails.
    pub fn boot(&self) -> PathBuf {
        self.state.join("boot")
    }

    /// Cgroup of a VMM.
    pub fn cgroup(&self, id: &VmId) -> PathBuf {
        self.cgroups.join(CGROUP).join(id.as_str())
    }

    /// Cgroup of the shim of a VMM.
    pub fn shim_cgroup(&self, id: &VmId) -> PathBuf {
        self.cgroups.join(CGROUP).join(format!("shim-{id}"))
    }
}
