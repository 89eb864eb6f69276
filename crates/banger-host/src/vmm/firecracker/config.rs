//! Firecracker's configuration of a VM, as a pure function of the VM. Paths are those in the jail.

use banger_engine::devices::{
    self, Devices, DriveKey, DriveSource, Need, Nic, NicKind, SourceKind, VmmAbilities,
};
use banger_engine::plan::VmSpec;
use banger_root::jail::{INITRAMFS, KERNEL, LOG, METRICS, VSOCK};
use banger_root::protocol::{self as root, DriveFrom};

use super::schema::{
    BootSource, CacheType, Drive, Entropy, Logger, MachineConfig, Metrics, NetworkInterface, Vsock,
};

/// Context id of the guest. Each VMM has its own vsock device, so all guests can share the id.
const GUEST_CID: u32 = 3;

/// Configuration before the start of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Where its log goes.
    pub logger: Logger,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// vCPUs and memory.
    pub machine: MachineConfig,
    /// Kernel and initramfs.
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
    "console=ttyS0 quiet systemd.show_status=1 \
     reboot=k panic=-1 pci=off rdinit=/init net.ifnames=0 \
     cloud-init=disabled cryptomgr.notests=1 random.trust_cpu=on i8042.noaux i8042.nomux \
     i8042.dumbkbd"
        .into()
}

/// Requirements of Firecracker, and supported devices.
pub const ABILITIES: VmmAbilities = VmmAbilities {
    root: Need::Required,
    kvm: Need::Required,
    nics: &[NicKind::Tap],
    sources: &[SourceKind::File, SourceKind::Device],
    drive_key: DriveKey::Order,
};

/// The drives for the helper, which creates their nodes in the jail.
pub fn drives(devices: &Devices) -> Vec<root::Drive> {
    let request = |drive: &devices::Drive| {
        let from = match drive.source {
            DriveSource::File(_) => DriveFrom::File,
            DriveSource::Device => DriveFrom::Snapshot,
        };
        root::Drive { role: drive.role, from }
    };
    devices.drives.iter().map(request).collect()
}

/// The configuration of a VM.
pub fn machine(spec: &VmSpec, devices: &Devices) -> Machine {
    let drive = |drive: &devices::Drive| Drive {
        drive_id: drive.role.as_str().into(),
        is_root_device: false,
        is_read_only: !drive.role.writable(),
        path_on_host: format!("/{}", root::node(drive.role)),
        cache_type: CacheType::Writeback,
        rate_limiter: None,
    };
    Machine {
        // A triple fault of the guest is logged at this level; a start logs a dozen lines.
        logger: Logger { log_path: format!("/{LOG}"), level: "Info".into(), show_level: true },
        metrics: Metrics { metrics_path: format!("/{METRICS}") },
        machine: MachineConfig { vcpu_count: spec.vcpus, mem_size_mib: spec.memory_mib },
        boot: BootSource {
            kernel_image_path: format!("/{KERNEL}"),
            initrd_path: format!("/{INITRAMFS}"),
            boot_args: kernel_command_line(),
        },
        drives: devices.drives.iter().map(drive).collect(),
        network: match &devices.nic {
            Nic::Tap { name, mac, .. } => Some(NetworkInterface {
                iface_id: "net".into(),
                host_dev_name: name.clone(),
                guest_mac: mac.to_string(),
                rx_rate_limiter: None,
                tx_rate_limiter: None,
            }),
            // Not among its abilities.
            Nic::User { .. } => None,
        },
        vsock: Vsock { guest_cid: GUEST_CID, uds_path: format!("/{VSOCK}") },
        entropy: Entropy::default(),
    }
}

#[cfg(test)]
mod tests {
    use banger_engine::devices::DriveRole;

    use super::*;
    use crate::testing::{devices, plan, spec, tap};

    #[test]
    fn drives_and_their_order() {
        let vm = plan("0123456789ab", "web");
        let mut devices = devices(&vm, &spec());
        devices.drives.insert(2, devices::Drive::file(DriveRole::Image, "/images/root.ext4"));
        let machine = machine(&spec(), &devices);
        let names: Vec<&str> = machine.drives.iter().map(|drive| &drive.path_on_host[..]).collect();
        assert_eq!(names, ["/drive-root", "/drive-work", "/drive-image", "/drive-modules"]);
        assert!(drives(&devices).iter().all(|drive| drive.from == DriveFrom::File));
        devices.drives[0] = devices::Drive::device(DriveRole::Root);
        assert_eq!(drives(&devices)[0].from, DriveFrom::Snapshot);
    }

    #[test]
    fn the_configuration_serialises_as_firecracker_expects() {
        let vm = plan("0123456789ab", "web");
        let machine = machine(&spec(), &Devices { nic: tap(&vm), ..devices(&vm, &spec()) });
        let drive = serde_json::to_value(&machine.drives[2]).unwrap();
        assert_eq!(drive["cache_type"], "Writeback");
        assert_eq!(drive["is_read_only"], true);
        assert_eq!(drive["is_root_device"], false);
        let network = serde_json::to_value(machine.network.unwrap()).unwrap();
        assert_eq!(network["guest_mac"], "02:23:45:67:89:ab");
        assert_eq!(network["host_dev_name"], "fc-0123456789ab");
        assert!(!machine.boot.boot_args.contains(" ip="), "{}", machine.boot.boot_args);
    }
}
