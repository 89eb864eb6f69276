//! Paths: every file and folder of a VM, derived from its id. See docs/state-dir.md.

use std::path::{Path, PathBuf};

use banger_api::VmId;

/// Folders of one daemon.
#[derive(Debug, Clone)]
pub struct Layout {
    /// State folder: VMs.
    pub state: PathBuf,
    /// Data folder: images and kernels.
    pub data: PathBuf,
    /// Cache folder: initramfs archives, blank disks, measurements.
    pub cache: PathBuf,
}

/// Socket of the VMM's vsock device, within the run folder.
pub const VSOCK: &str = "v.sock";
/// Socket between companion and VMM, within the run folder.
pub const VHOST: &str = "vhost.sock";

impl Layout {
    /// Folder of all VMs.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// Folder of a VM.
    pub fn vm(&self, id: &VmId) -> PathBuf {
        self.vms().join(id.as_str())
    }

    /// The VM's root disk, or its private layer.
    pub fn root_disk(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("root.ext4")
    }

    /// The changed blocks of a root disk that is a snapshot of the image.
    pub fn root_cow(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("root.cow")
    }

    /// The new root disk of a reset, beside the file of the present one.
    pub fn new_root(&self, root: &Path) -> PathBuf {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        root.with_file_name(format!("new-{name}"))
    }

    /// The VM's work disk.
    pub fn work_disk(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("work.ext4")
    }

    /// The VM's ssh host key: private part, OpenSSH format.
    pub fn host_key(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("ssh_host_ed25519_key")
    }

    /// The password of the VM's opencode server.
    pub fn opencode_password(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("opencode-password")
    }

    /// The user's ssh key for all VMs if none is configured: private part, OpenSSH format.
    pub fn user_key(&self) -> PathBuf {
        self.state.join("ssh/id_ed25519")
    }

    /// Symlink to the user's key, for ssh(1).
    pub fn user_identity(&self) -> PathBuf {
        self.state.join("ssh/identity")
    }

    /// Folder of the VM's logs.
    pub fn logs(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("logs")
    }

    /// Folder of the logs of failed starts of `--rm` VMs.
    pub fn failed_starts(&self) -> PathBuf {
        self.state.join("log/failed-starts")
    }

    /// Folder of the logs of image builds.
    pub fn builds(&self) -> PathBuf {
        self.state.join("log/builds")
    }

    /// Serial console.
    pub fn console_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("console.log")
    }

    /// Output of VMM and companion.
    pub fn vmm_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("vmm.log")
    }

    /// Output of the shim.
    pub fn shim_log(&self, id: &VmId) -> PathBuf {
        self.logs(id).join("shim.log")
    }

    /// Folder of the shim's state and exit story; only the daemon's user can write to it.
    pub fn shim_state(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("shim")
    }

    /// Folder of one run, with its sockets; owned by the VMM's uid.
    pub fn run(&self, id: &VmId) -> PathBuf {
        self.vm(id).join("run")
    }

    /// Folder of all images.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Folder of all kernels.
    pub fn kernels(&self) -> PathBuf {
        self.data.join("kernels")
    }

    /// Folder of boot initramfs archives.
    pub fn initramfs(&self) -> PathBuf {
        self.cache.join("initramfs")
    }

    /// Folder of blank disks.
    pub fn blank_disks(&self) -> PathBuf {
        self.cache.join("blank")
    }
}

/// A path for messages.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
