//! The command line of QEMU's microvm machine, as a pure function of a VM.
//!
//! QEMU runs as its own uid in the run folder: it opens nothing by path but what is world-readable
//! on every host. Disks come as descriptors in fd sets (`/dev/fdset/N`), kernel and initramfs
//! through `/proc/self/fd/N`. A fd set of a writable disk holds it read-write and read-only,
//! because QEMU opens it once each way (block/file-posix.c).

use banger_engine::plan::{VmPlan, VmSpec};

use crate::layout::VHOST;

/// Descriptor numbers that QEMU finds its files at.
pub mod fd {
    /// Kernel, read-only.
    pub const KERNEL: i32 = 100;
    /// Initramfs, read-only.
    pub const INITRAMFS: i32 = 101;
    /// Read-only disk of the kernel's modules.
    pub const MODULES: i32 = 102;
    /// Read-only image, where the root disk is a layer over it.
    pub const IMAGE: i32 = 103;
    /// Root disk, read-write; and read-only at the next number.
    pub const ROOT: i32 = 104;
    /// Work disk, read-write; and read-only at the next number.
    pub const WORK: i32 = 106;
    /// The shim's end of QMP.
    pub const MONITOR: i32 = 108;
}

/// What the emulation needs to know of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Software emulation, with the frequency of the host's time stamp counter in kHz, where known.
    Tcg {
        /// kHz.
        tsc_khz: Option<u64>,
    },
    /// The kernel's own.
    Kvm,
}

/// Limit of QEMU's cache of translated code under emulation, in MiB. QEMU's default is 1 GiB, which
/// a Debian guest fills to hundreds of MiB in a minute of work with many programs. Measured side by
/// side on such work: 425 MB of RSS and 80.4 s of CPU time with 64 MiB, 504 MB and 78.7 s with 128.
const TRANSLATED_MIB: u32 = 64;

/// Whether the root disk is a layer over the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// It is.
    Layered,
    /// It is whole by itself.
    Whole,
}

/// The guest kernel's command line.
///
/// Sources: Documentation/admin-guide/kernel-parameters.rst. `tsc_early_khz` spares the calibration
/// that hangs now and then under emulation; `cryptomgr.notests` and `random.trust_cpu` save half a
/// second; `reboot=t` and `panic=-1` turn a reset and a panic into an exit of the VMM.
///
/// `tsc=reliable` keeps the guest from comparing the counter with its other clocks: on a busy host
/// a vCPU is preempted between the two reads, the guest takes the difference for a fault, and goes
/// over to jiffies, which lose time with every tick that comes late. Under emulation the counter is
/// the host's, the same for all vCPUs. Under KVM the parameter is not needed: `kvm-clock` is there,
/// which the host keeps right, and is what the guest falls back to.
pub fn kernel_command_line(accelerator: Accelerator) -> String {
    let mut line = String::from(
        "console=ttyS0 quiet reboot=t panic=-1 rdinit=/init net.ifnames=0 cloud-init=disabled \
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
pub fn arguments(vm: &VmPlan, spec: &VmSpec, accelerator: Accelerator, root: Root) -> Vec<String> {
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
    add("-chardev", format!("socket,id=vsock,path={VHOST}"));
    add("-device", "vhost-user-vsock-device,chardev=vsock".into());
    let mut disk = |serial: &str, numbers: &[i32], readonly: bool| {
        let set = numbers[0];
        for number in numbers {
            args.extend(["-add-fd".to_owned(), format!("fd={number},set={set}")]);
        }
        let mode = if readonly { "on" } else { "off" };
        args.extend([
            "-drive".to_owned(),
            format!(
                "if=none,id={serial},file=/dev/fdset/{set},format=raw,readonly={mode},\
                 discard=unmap,cache=writeback,aio=threads"
            ),
            "-device".to_owned(),
            // The shim hears of it by QMP and resumes the guest when there is room.
            format!("virtio-blk-device,drive={serial},serial={serial},werror=stop,rerror=report"),
        ]);
    };
    disk("root", &[fd::ROOT, fd::ROOT + 1], false);
    disk("work", &[fd::WORK, fd::WORK + 1], false);
    if root == Root::Layered {
        disk("image", &[fd::IMAGE], true);
    }
    disk("modules", &[fd::MODULES], true);
    args.extend([
        "-netdev".to_owned(),
        network(spec),
        "-device".to_owned(),
        format!("virtio-net-device,netdev=net,mac={}", vm.id.mac()),
    ]);
    for flag in ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"] {
        args.push(flag.to_owned());
    }
    args.extend([
        "-sandbox".to_owned(),
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned(),
    ]);
    args
}

/// The user network. What is forwarded is reached also where the guest is cut off.
fn network(spec: &VmSpec) -> String {
    let restrict = if spec.nat { "off" } else { "on" };
    let mut text = format!("user,id=net,restrict={restrict},ipv6=off");
    for port in &spec.publish {
        text.push_str(&format!(",hostfwd=tcp:{}-:{}", port.listens_on(), port.guest_port));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, spec};

    fn joined(spec: &VmSpec, root: Root) -> String {
        let vm = plan("0123456789ab", "web");
        arguments(&vm, spec, Accelerator::Tcg { tsc_khz: Some(2_000_000) }, root).join(" ")
    }

    #[test]
    fn a_layered_root_adds_the_image_and_nothing_else() {
        let spec = spec();
        let (layered, whole) = (joined(&spec, Root::Layered), joined(&spec, Root::Whole));
        assert!(layered.contains("-add-fd fd=103,set=103"));
        assert!(!whole.contains("image"));
        assert!(whole.contains("-add-fd fd=104,set=104 -add-fd fd=105,set=104"));
    }

    #[test]
    fn nothing_is_opened_by_a_path_of_the_host() {
        let text = joined(&spec(), Root::Layered);
        for word in text.split([' ', ',', '=']) {
            let allowed = word.starts_with("/proc/self/fd/")
                || word.starts_with("/dev/fdset/")
                || word == "/init";
            assert!(!word.starts_with('/') || allowed, "{word}");
        }
    }

    #[test]
    fn nat_off_cuts_the_guest_off() {
        let mut spec = spec();
        assert!(joined(&spec, Root::Whole).contains("restrict=off"));
        spec.nat = false;
        assert!(joined(&spec, Root::Whole).contains("restrict=on"));
    }

    #[test]
    fn published_ports_are_forwarded_by_qemu() {
        let mut spec = spec();
        spec.publish = ["8080:80", "0.0.0.0:2222:22"].map(|text| text.parse().unwrap()).into();
        let forwards = "ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:0.0.0.0:2222-:22 ";
        assert!(joined(&spec, Root::Whole).contains(forwards));
    }

    #[test]
    fn emulation_keeps_a_bounded_amount_of_translated_code() {
        let (vm, spec) = (plan("0123456789ab", "web"), spec());
        let text = joined(&spec, Root::Whole);
        assert!(text.starts_with("-accel tcg,tb-size=64 -M microvm,memory-backend"), "{text}");
        let kvm = arguments(&vm, &spec, Accelerator::Kvm, Root::Whole).join(" ");
        assert!(kvm.starts_with("-accel kvm -M microvm,"), "{kvm}");
    }

    #[test]
    fn only_emulation_is_told_of_the_time_stamp_counter() {
        let told = kernel_command_line(Accelerator::Tcg { tsc_khz: Some(5) });
        assert!(told.ends_with(" tsc=reliable tsc_early_khz=5"));
        assert!(kernel_command_line(Accelerator::Tcg { tsc_khz: None }).ends_with(" tsc=reliable"));
        assert!(!kernel_command_line(Accelerator::Kvm).contains("tsc"));
    }

    #[test]
    fn a_disk_write_that_fails_on_the_host_holds_the_guest() {
        let text = joined(&spec(), Root::Layered);
        for disk in ["root", "work", "image", "modules"] {
            let device =
                format!("virtio-blk-device,drive={disk},serial={disk},werror=stop,rerror=report ");
            assert!(text.contains(&device), "{text}");
        }
    }
}
