//! Shortens the boot of the default image. Under software emulation each
//! program that is started costs 0.1 to 0.4 s, so a boot is as long as its list of programs.

use super::rootfs::put_file;
use crate::ext4::{Ext4Error, Kind, Meta, Tree};

/// Timers for long-running machines. In a short-lived VM they hold the package manager's
/// lock or the disk when the user needs it.
const TIMERS: [&str; 5] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "man-db.timer",
];

/// Units without a purpose in a VM:
///
/// - a screen, and a serial line on which no login is possible, since root has no password;
/// - modules that the kernel loads by itself when their device is opened (fuse, loop,
///   device-mapper), or for hardware that the VM does not have;
/// - the seed of the random number generator, which the host provides at each boot;
/// - first-boot questions, the machine id and partitions, which the host and the agent set up;
/// - records of boots and runlevels in utmp(5); logins are recorded by programs that log users in.
const MASKED: [&str; 17] = [
    "getty-static.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "serial-getty@ttyS0.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-repart.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
];

/// Generators for devices and features that these VMs do not have. They run at boot and at each
/// `daemon-reload`.
const MASKED_GENERATORS: [&str; 9] = [
    "systemd-bless-boot-generator",
    "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-veritysetup-generator",
];

/// Other units that are not started at boot. AppArmor profiles cost more boot time than they
/// protect here; container engines load their own.
const DISABLED: [&str; 4] = [
    "getty.target.wants/getty@tty1.service",
    "multi-user.target.wants/e2scrub_reap.service",
    "multi-user.target.wants/rsync.service",
    "sysinit.target.wants/apparmor.service",
];

/// Units that start when they are first used: the system bus by its socket, logind by the bus.
const ON_DEMAND: [&str; 4] = [
    "multi-user.target.wants/dbus.service",
    "multi-user.target.wants/systemd-ask-password-wall.path",
    "multi-user.target.wants/systemd-logind.service",
    "sysinit.target.wants/systemd-ask-password-console.path",
];

/// Coldplugging without devices that no udev rule handles: virtual terminals but the first, memory
/// blocks, clocks and so on (two thirds of all events), and without buses, drivers and modules
/// (`--type=devices`, as systemd did before version 251).
const COLDPLUG: &str = "[Service]\n\
    ExecStart=\n\
    ExecStart=-udevadm trigger --type=devices --action=add \
    --prioritized-subsystem=block,tpmrm,net,tty,input --attr-nomatch=dev=4:[1-5]* \
    --subsystem-nomatch=acpi --subsystem-nomatch=bdi --subsystem-nomatch=clockevents \
    --subsystem-nomatch=clocksource --subsystem-nomatch=event_source \
    --subsystem-nomatch=memory --subsystem-nomatch=vc --subsystem-nomatch=vtconsole \
    --subsystem-nomatch=wakeup --subsystem-nomatch=workqueue\n";

/// Drop-ins by unit.
const DROP_INS: [(&str, &str); 4] = [
    // The agent creates this file: the journal goes to the disk from its beginning.
    (
        "systemd-journal-flush.service",
        "[Unit]\nConditionPathExists=!/run/systemd/journal/flushed\n",
    ),
    // The image's table is empty until a user writes to it.
    ("systemd-remount-fs.service", "[Unit]\nConditionFileNotEmpty=/etc/fstab\n"),
    ("systemd-udev-trigger.service", COLDPLUG),
    // sshd checks its configuration itself when it starts.
    ("ssh.service", "[Service]\nExecStartPre=\n"),
];

/// Shortens the boot of an installed Debian.
///
/// # Errors
/// The tree is not one of mmdebstrap.
pub fn shorten(tree: &mut Tree) -> Result<(), Ext4Error> {
    let system = "etc/systemd/system";
    for timer in TIMERS {
        tree.remove(format!("{system}/timers.target.wants/{timer}"));
    }
    for unit in DISABLED {
        tree.remove(format!("{system}/{unit}"));
    }
    for folder in ["lib", "usr/lib"] {
        for unit in ON_DEMAND {
            tree.remove(format!("{folder}/systemd/system/{unit}"));
        }
    }
    for unit in MASKED {
        mask(tree, &format!("{system}/{unit}"))?;
    }
    for generator in MASKED_GENERATORS {
        mask(tree, &format!("etc/systemd/system-generators/{generator}"))?;
    }
    for (unit, text) in DROP_INS {
        put_file(tree, &format!("{system}/{unit}.d/banger.conf"), text, 0o644)?;
    }
    // It forbids logins until systemd-user-sessions.service, which is masked.
    mask(tree, "etc/tmpfiles.d/systemd-nologin.conf")?;
    put_file(tree, "etc/fstab", "", 0o644)?;
    // These need a service and a kernel module, only to run Python bytecode files directly.
    for name in tree.list("usr/lib/binfmt.d") {
        if name.starts_with("python") {
            tree.remove(format!("usr/lib/binfmt.d/{name}"));
        }
    }
    // The users of all packages exist, so no service has to create them at the first boot
    // (ConditionNeedsUpdate= in systemd.unit(5), which compares the times with that of /usr).
    let usr = tree.resolve("usr").map(|usr| tree.node(usr).meta);
    for path in ["etc/.updated", "var/.updated"] {
        put_file(tree, path, "", 0o644)?;
        if let (Some(file), Some(usr)) = (tree.get(path), usr) {
            let meta = &mut tree.node_mut(file).meta;
            (meta.mtime_s, meta.mtime_ns) = (usr.mtime_s, usr.mtime_ns);
        }
    }
    Ok(())
}

fn mask(tree: &mut Tree, path: &str) -> Result<(), Ext4Error> {
    tree.put(path, Kind::Symlink("/dev/null".into()), Meta::of_root(0o777))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unneeded_units_are_disabled_and_others_kept() {
        let mut tree = Tree::new();
        let wants = "etc/systemd/system/timers.target.wants";
        for timer in TIMERS.into_iter().chain(["fstrim.timer"]) {
            put_file(&mut tree, &format!("{wants}/{timer}"), "", 0o644).unwrap();
        }
        let on_demand = "usr/lib/systemd/system/multi-user.target.wants";
        for unit in ["dbus.service", "systemd-logind.service", "getty.target"] {
            put_file(&mut tree, &format!("{on_demand}/{unit}"), "", 0o644).unwrap();
        }
        for name in ["python3.11.conf", "qemu-arm.conf"] {
            put_file(&mut tree, &format!("usr/lib/binfmt.d/{name}"), "", 0o644).unwrap();
        }
        let usr = tree.get("usr").unwrap();
        tree.node_mut(usr).meta.mtime_s = 1_700_000_000;
        shorten(&mut tree).unwrap();
        assert_eq!(tree.list(wants), ["fstrim.timer"]);
        assert_eq!(tree.list(on_demand), ["getty.target"]);
        assert_eq!(tree.list("usr/lib/binfmt.d"), ["qemu-arm.conf"]);
        let mask = tree.get("etc/systemd/system/serial-getty@ttyS0.service").unwrap();
        assert_eq!(tree.node(mask).kind, Kind::Symlink("/dev/null".into()));
        for path in ["etc/.updated", "var/.updated"] {
            let file = tree.get(path).unwrap();
            assert_eq!(tree.node(file).meta.mtime_s, 1_700_000_000, "{path}");
        }
    }
}
