//! The command line of QEMU's microvm machine, as a pure function of a VM.
//!
//! QEMU runs as its own uid in the run folder: it opens nothing by path but what is world-readable
//! on every host. Disks come as descriptors in fd sets (`/dev/fdset/N`), kernel and initramfs
//! through `/proc/self/fd/N`, a TAP as the descriptor that it was opened with. A fd set of a
//! writable disk holds it read-write and read-only, because QEMU opens it once each way
//! (block/file-posix.c).

use banger_engine::devices::{
    Devices, Drive, DriveKey, DriveSource, Need, Nic, NicKind, Outside, SourceKind, VmmAbilities,
};
use banger_engine::plan::VmSpec;

/// Descriptor numbers that QEMU finds its files at.
pub mod fd {
    /// A connection to the companion.
    pub const VSOCK: i32 = 99;
    /// Kernel, read-only.
    pub const KERNEL: i32 = 100;
    /// Initramfs, read-only.
    pub const INITRAMFS: i32 = 101;
    /// The shim's end of QMP.
    pub const MONITOR: i32 = 102;
    /// The TAP, where it has one.
    pub const TAP: i32 = 103;
    /// First of the drives.
    const DRIVES: i32 = 104;

    /// The drive at this place. A writable drive has a read-only descriptor at the next number.
    pub fn drive(place: usize) -> i32 {
        DRIVES + 2 * i32::try_from(place).unwrap_or_default()
    }
}

/// Requirements of QEMU, and supported devices.
pub const ABILITIES: VmmAbilities = VmmAbilities {
    root: Need::None,
    kvm: Need::None,
    nics: &[NicKind::Tap, NicKind::User],
    sources: &[SourceKind::File, SourceKind::Device],
    drive_key: DriveKey::Serial,
};

/// Accelerator of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Software emulation, with the frequency of the host's time stamp counter in kHz, where known.
    Tcg {
        /// kHz.
        tsc_khz: Option<u64>,
    },
    /// KVM.
    Kvm,
}

/// Limit of QEMU's cache of translated code under emulation, in MiB. QEMU's default is 1 GiB, which
/// a Debian guest fills to hundreds of MiB in a minute of work with many programs. Measured side by
/// side on such work: 425 MB of RSS and 80.4 s of CPU time with 64 MiB, 504 MB and 78.7 s with 128.
const TRANSLATED_MIB: u32 = 64;

/// The guest kernel's command line.
///
/// Sources: Documentation/admin-guide/kernel-parameters.rst. `tsc_early_khz` spares the calibration
/// that hangs now and then under emulation; `cryptomgr.notests` and `random.trust_cpu` save half a
/// second; `systemd.show_status` puts on the console which units start, as other inits do unasked
/// (systemd(1)); `reboot=t` and `panic=-1` turn a reset and a panic into an exit of the VMM.
///
/// `tsc=reliable` keeps the guest from comparing the counter with its other clocks: on a busy host
/// a vCPU is preempted between the two reads, the guest takes the difference for a fault, and goes
/// over to jiffies, which lose time with every tick that comes late. Under emulation the counter is
/// the host's, the same for all vCPUs. Under KVM the parameter is not needed: `kvm-clock` is there,
/// which the host keeps right, and is what the guest falls back to.
pub fn kernel_command_line(accelerator: Accelerator) -> String {
    let mut line = String::from(
        "console=ttyS0 quiet systemd.show_status=1 \
         reboot=t panic=-1 rdinit=/init net.ifnames=0 cloud-init=disabled \
         cryptomgr.notests=1 random.trust_cpu=on i8042.noaux i8042.nomux i8042.dumbkbd",
    );
    if let Accelerator::Tcg { tsc_khz } = accelerator {
        line.push_str(" tsc=reliable");
        if let Some(khz) = tsc_khz {
            line.push_str(&format!(" tsc_early_khz={khz}"));
        }
    }
    line
}

/// Arguments of QEMU.
pub fn arguments(spec: &VmSpec, accelerator: Accelerator, devices: &Devices) -> Vec<String> {
    let (accel, cpu) = match accelerator {
        // One thread for all vCPUs or one for each is QEMU's own choice.
        Accelerator::Tcg { .. } => (format!("tcg,tb-size={TRANSLATED_MIB}"), "max"),
        Accelerator::Kvm => ("kvm".to_owned(), "host"),
    };
    let mut args: Vec<String> = Vec::new();
    let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
    add("-accel", accel);
    add("-M", "microvm,memory-backend=mem,x-option-roms=off,pit=off,pic=off".into());
    add("-cpu", cpu.into());
    add("-smp", spec.vcpus.to_string());
    add("-m", format!("{}M", spec.memory_mib));
    // The companion maps the guest's memory, so it is a shared memfd.
    add("-object", format!("memory-backend-memfd,id=mem,size={}M,share=on", spec.memory_mib));
    add("-kernel", format!("/proc/self/fd/{}", fd::KERNEL));
    add("-initrd", format!("/proc/self/fd/{}", fd::INITRAMFS));
    add("-append", kernel_command_line(accelerator));
    add("-serial", "stdio".into());
    add("-chardev", format!("socket,id=qmp,fd={}", fd::MONITOR));
    add("-mon", "chardev=qmp,mode=control".into());
    add("-chardev", format!("socket,id=vsock,fd={}", fd::VSOCK));
    add("-device", "vhost-user-vsock-device,chardev=vsock".into());
    for (place, drive) in devices.drives.iter().enumerate() {
        args.extend(disk(drive, fd::drive(place)));
    }
    let device = format!("virtio-net-device,netdev=net,mac={}", devices.nic.mac());
    args.extend(["-netdev".to_owned(), network(&devices.nic), "-device".to_owned(), device]);
    for flag in ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"] {
        args.push(flag.to_owned());
    }
    args.extend([
        "-sandbox".to_owned(),
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned(),
    ]);
    args
}

/// Arguments of a drive; its descriptors are at `set` and the next number.
fn disk(drive: &Drive, set: i32) -> Vec<String> {
    let (serial, writable) = (drive.role.as_str(), drive.role.writable());
    let mut args = Vec::new();
    let numbers = if writable { set..=set + 1 } else { set..=set };
    for number in numbers {
        args.extend(["-add-fd".to_owned(), format!("fd={number},set={set}")]);
    }
    let readonly = if writable { "off" } else { "on" };
    // QEMU pauses the guest at a failed write, and the shim resumes it (events of QMP). A device
    // also pauses it at a failed read: a snapshot whose changes the host cannot store becomes
    // invalid, and then all its reads and writes fail with EIO (the kernel's dm-snap.c). So a guest
    // on it never sees errors, and its disks stay as after a power cut (docs/decisions/0019).
    // Its page cache would accept a write and report the error at the next flush only, which QEMU
    // cannot repeat, so a device is used without.
    let (file, cache, rerror) = match drive.source {
        DriveSource::File(_) => (format!("file=/dev/fdset/{set}"), "writeback", "report"),
        DriveSource::Device => {
            (format!("file.driver=host_device,file.filename=/dev/fdset/{set}"), "none", "stop")
        }
    };
    args.extend([
        "-drive".to_owned(),
        format!(
            "if=none,id={serial},{file},format=raw,readonly={readonly},discard=unmap,\
             cache={cache},aio=threads"
        ),
        "-device".to_owned(),
        format!("virtio-blk-device,drive={serial},serial={serial},werror=stop,rerror={rerror}"),
    ]);
    args
}

/// Host side of the network interface.
fn network(nic: &Nic) -> String {
    match nic {
        Nic::Tap { .. } => format!("tap,id=net,fd={}", fd::TAP),
        // Forwarded ports work with `restrict=on` too.
        Nic::User { outside, forwards, .. } => {
            let restrict = match outside {
                Outside::Reached => "off",
                Outside::CutOff => "on",
            };
            let mut text = format!("user,id=net,restrict={restrict},ipv6=off");
            for port in forwards {
                text.push_str(&format!(",hostfwd=tcp:{}-:{}", port.listens_on(), port.guest_port));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use banger_engine::devices::DriveRole;

    use super::*;
    use crate::testing::{devices, plan, spec, tap};

    const EMULATED: Accelerator = Accelerator::Tcg { tsc_khz: Some(2_000_000) };

    fn command_line(devices: &Devices) -> String {
        arguments(&spec(), EMULATED, devices).join(" ")
    }

    fn layered() -> Devices {
        let mut devices = devices(&plan("0123456789ab", "web"), &spec());
        devices.drives.insert(2, Drive::file(DriveRole::Image, "/images/root.ext4"));
        devices
    }

    fn with_network(change: impl FnOnce(&mut VmSpec)) -> String {
        let mut spec = spec();
        change(&mut spec);
        command_line(&devices(&plan("0123456789ab", "web"), &spec))
    }

    #[test]
    fn each_drive_has_its_numbers_and_serial() {
        let text = command_line(&layered());
        for (serial, set, mode) in [
            ("root", 104, "off"),
            ("work", 106, "off"),
            ("image", 108, "on"),
            ("modules", 110, "on"),
        ] {
            assert!(text.contains(&format!("-add-fd fd={set},set={set}")), "{text}");
            let second = format!("-add-fd fd={},set={set}", set + 1);
            assert_eq!(text.contains(&second), mode == "off", "{text}");
            let drive = format!("id={serial},file=/dev/fdset/{set},format=raw,readonly={mode},");
            assert!(text.contains(&drive), "{text}");
        }
        let whole = command_line(&devices(&plan("0123456789ab", "web"), &spec()));
        assert!(!whole.contains("image"), "{whole}");
    }

    #[test]
    fn nothing_is_opened_by_a_path_of_the_host() {
        let mut with_devices = layered();
        with_devices.drives[0] = Drive::device(DriveRole::Root);
        with_devices.nic = tap(&plan("0123456789ab", "web"));
        for text in [command_line(&layered()), command_line(&with_devices)] {
            for word in text.split([' ', ',', '=']) {
                let allowed = word.starts_with("/proc/self/fd/")
                    || word.starts_with("/dev/fdset/")
                    || word == "/init";
                assert!(!word.starts_with('/') || allowed, "{word}");
            }
        }
    }

    #[test]
    fn a_block_device_is_opened_as_one_and_its_errors_pause_the_guest() {
        let mut devices = layered();
        devices.drives[0] = Drive::device(DriveRole::Root);
        let text = command_line(&devices);
        assert!(text.contains("file.driver=host_device,file.filename=/dev/fdset/104,"), "{text}");
        assert!(text.contains("drive=root,serial=root,werror=stop,rerror=stop"), "{text}");
        assert!(text.contains("drive=work,serial=work,werror=stop,rerror=report"), "{text}");
    }

    #[test]
    fn a_tap_comes_as_a_descriptor() {
        let vm = plan("0123456789ab", "web");
        let text = command_line(&Devices { nic: tap(&vm), ..layered() });
        assert!(text.contains("-netdev tap,id=net,fd=103 -device virtio-net-device,netdev=net,"));
        assert!(text.contains(&format!("mac={}", vm.id.mac())) && !text.contains("user,"));
    }

    #[test]
    fn nat_off_cuts_the_guest_off() {
        assert!(with_network(|_| ()).contains("restrict=off"));
        assert!(with_network(|spec| spec.nat = false).contains("restrict=on"));
    }

    #[test]
    fn published_ports_are_forwarded_by_qemu() {
        let publish = ["8080:80", "0.0.0.0:2222:22"].map(|text| text.parse().unwrap());
        let text = with_network(|spec| spec.publish = publish.into());
        let forwards = "ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:0.0.0.0:2222-:22 ";
        assert!(text.contains(forwards));
    }

    #[test]
    fn emulation_keeps_a_bounded_amount_of_translated_code() {
        let text = command_line(&layered());
        assert!(text.starts_with("-accel tcg,tb-size=64 -M microvm,memory-backend"), "{text}");
        let kvm = arguments(&spec(), Accelerator::Kvm, &layered()).join(" ");
        assert!(kvm.starts_with("-accel kvm -M microvm,"), "{kvm}");
    }

    #[test]
    fn only_emulation_sets_the_frequency_of_the_time_stamp_counter() {
        let line = kernel_command_line(Accelerator::Tcg { tsc_khz: Some(5) });
        assert!(line.ends_with(" tsc=reliable tsc_early_khz=5"));
        assert!(kernel_command_line(Accelerator::Tcg { tsc_khz: None }).ends_with(" tsc=reliable"));
        assert!(!kernel_command_line(Accelerator::Kvm).contains("tsc"));
    }

    #[test]
    fn a_disk_write_that_fails_on_the_host_pauses_the_guest() {
        let text = command_line(&layered());
        for disk in ["root", "work", "image", "modules"] {
            let device =
                format!("virtio-blk-device,drive={disk},serial={disk},werror=stop,rerror=report ");
            assert!(text.contains(&device), "{text}");
        }
    }
}
