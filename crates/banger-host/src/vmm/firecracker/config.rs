//! What Firecracker is told about a VM, as a pure function of it. Paths are those in the jail.

use banger_engine::plan::{VmPlan, VmSpec};
use banger_root::jail::{INITRAMFS, KERNEL, LOG, METRICS, VSOCK};
use banger_root::protocol::{self as root, DriveFrom, Role};

use super::words::{
    BootSource, CacheType, Drive, Entropy, Logger, MachineConfig, Metrics, NetworkInterface, Vsock,
};

/// Context id of the guest; each VMM has a vsock of its own, so it can be the same everywhere.
const GUEST_CID: u32 = 3;

/// Everything before the guest is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Where its log goes.
    pub logger: Logger,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// vCPUs and memory.
    pub machine: MachineConfig,
    /// What it boots.
    pub boot: BootSource,
    /// Its drives in order.
    pub drives: Vec<Drive>,
    /// Its interface, if it is on a network.
    pub network: Option<NetworkInterface>,
    /// Its vsock.
    pub vsock: Vsock,
    /// Its entropy device.
    pub entropy: Entropy,
}

/// The guest kernel's command line, after Documentation/admin-guide/kernel-parameters.rst.
///
/// Firecracker exits when the guest resets itself through the keyboard controller (`reboot=k`);
/// there is no PCI bus to look for; `i8042.*` spares waiting for a controller that has nothing
/// else. No `ip=`: the agent sets the network.
pub fn kernel_command_line() -> String {
    "console=ttyS0 quiet reboot=k panic=-1 pci=off rdinit=/init net.ifnames=0 \
     cloud-init=disabled cryptomgr.notests=1 random.trust_cpu=on i8042.noaux i8042.nomux \
     i8042.dumbkbd"
        .into()
}

/// The drives of a VM in the order in which the guest sees them.
pub fn drives(vm: &VmPlan) -> Vec<root::Drive> {
    let file = |role| root::Drive { role, from: DriveFrom::File };
    let storage = vm.drivers.storage.name.as_str();
    let first = match storage {
        "dm-snapshot" => root::Drive { role: Role::Root, from: DriveFrom::Snapshot },
        _ => file(Role::Root),
    };
    let image = (storage == "overlay").then(|| file(Role::Image));
    [Some(first), Some(file(Role::Work)), image, Some(file(Role::Modules))]
        .into_iter()
        .flatten()
        .collect()
}

/// Place of a drive among those that the guest sees.
pub fn index(vm: &VmPlan, role: Role) -> Option<u8> {
    let place = drives(vm).iter().position(|drive| drive.role == role)?;
    u8::try_from(place).ok()
}

/// What Firecracker is told about a VM.
pub fn machine(vm: &VmPlan, spec: &VmSpec, tap: Option<String>) -> Machine {
    let drive = |drive: &root::Drive| Drive {
        drive_id: drive.role.as_str().into(),
        is_root_device: false,
        is_read_only: !drive.role.writable(),
        path_on_host: format!("/{}", drive.role.node()),
        cache_type: CacheType::Writeback,
        rate_limiter: None,
    };
    Machine {
        // A guest whose CPU gives up is told of at this level only; a start has a dozen lines.
        logger: Logger { log_path: format!("/{LOG}"), level: "Info".into(), show_level: true },
        metrics: Metrics { metrics_path: format!("/{METRICS}") },
        machine: MachineConfig { vcpu_count: spec.vcpus, mem_size_mib: spec.memory_mib },
        boot: BootSource {
            kernel_image_path: format!("/{KERNEL}"),
            initrd_path: format!("/{INITRAMFS}"),
            boot_args: kernel_command_line(),
        },
        drives: drives(vm).iter().map(drive).collect(),
        network: tap.map(|tap| NetworkInterface {
            iface_id: "net".into(),
            host_dev_name: tap,
            guest_mac: vm.id.mac().to_string(),
            rx_rate_limiter: None,
            tx_rate_limiter: None,
        }),
        vsock: Vsock { guest_cid: GUEST_CID, uds_path: format!("/{VSOCK}") },
        entropy: Entropy::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, spec};

    fn with_storage(name: &str) -> VmPlan {
        let mut vm = plan("0123456789ab", "web");
        vm.drivers.storage.name = name.into();
        vm
    }

    #[test]
    fn drives_and_their_order() {
        let layered = with_storage("overlay");
        let names: Vec<String> = machine(&layered, &spec(), None)
            .drives
            .into_iter()
            .map(|drive| drive.path_on_host)
            .collect();
        assert_eq!(names, ["/drive-root", "/drive-work", "/drive-image", "/drive-modules"]);
        assert_eq!(index(&layered, Role::Modules), Some(3));
        let whole = with_storage("dm-snapshot");
        assert_eq!(index(&whole, Role::Image), None);
        assert_eq!(index(&whole, Role::Modules), Some(2));
        assert_eq!(drives(&whole)[0].from, DriveFrom::Snapshot);
    }

    #[test]
    fn what_is_said_is_what_firecracker_expects() {
        let told = machine(&with_storage("copy"), &spec(), Some("fc-0123456789ab".into()));
        let drive = serde_json::to_value(&told.drives[2]).unwrap();
        assert_eq!(drive["cache_type"], "Writeback");
        assert_eq!(drive["is_read_only"], true);
        assert_eq!(drive["is_root_device"], false);
        let network = serde_json::to_value(told.network.unwrap()).unwrap();
        assert_eq!(network["guest_mac"], "02:23:45:67:89:ab");
        assert!(!told.boot.boot_args.contains(" ip="), "{}", told.boot.boot_args);
    }
}
