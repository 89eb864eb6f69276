//! What this host has and lacks for VMs. Changes nothing.
//!
//! Where KVM works, VMs are Firecracker's, and what that needs is asked of root; QEMU is only a
//! second choice then. Elsewhere it is the other way round.

use std::path::{Path, PathBuf};

use banger_api::doctor::{Check, Verdict};
use banger_root::words::Finding;

use crate::HostConfig;
use crate::host::MAPPER;
use crate::probe::{self, Kvm};

/// Free space below which it is worth a word.
const ENOUGH: u64 = 1 << 30;

/// All checks of the host.
pub async fn checks(config: &HostConfig) -> Vec<Check> {
    let mut checks = Vec::new();
    let kvm = config.kvm();
    checks.push(kvm_check(&kvm));
    match kvm {
        Kvm::Usable => {
            checks.extend(root_checks(config).await);
            checks.push(mapper_check());
        }
        Kvm::Unusable(_) => checks.extend(qemu_checks(config)),
    }
    checks.push(tool(config, "mke2fs", "e2fsprogs", &["create"]));
    checks.push(tool(config, "mmdebstrap", "mmdebstrap", &["image pull"]));
    checks.push(tool(config, "apt-get", "apt", &["kernel pull"]));
    checks.push(tool(config, "dpkg-deb", "dpkg", &["kernel pull"]));
    checks.push(disk_check(config));
    checks
}

fn check(code: &str, verdict: Verdict, seen: impl Into<String>, needed_for: &[&str]) -> Check {
    let needed_for = needed_for.iter().map(|need| (*need).to_owned()).collect();
    Check { code: code.into(), verdict, seen: seen.into(), hint: None, needed_for }
}

fn with_hint(mut check: Check, hint: impl Into<String>) -> Check {
    check.hint = Some(hint.into());
    check
}

fn kvm_check(kvm: &Kvm) -> Check {
    match kvm {
        Kvm::Usable => check("kvm", Verdict::Ok, "KVM works", &["speed"]),
        Kvm::Unusable(why) => with_hint(
            check("kvm", Verdict::Warning, why, &["speed"]),
            "VMs run under software emulation, which is slower",
        ),
    }
}

/// What root says of the host, or that nobody can be asked.
async fn root_checks(config: &HostConfig) -> Vec<Check> {
    match config.root.findings().await {
        Ok(findings) => {
            let answers = check("root", Verdict::Ok, "what needs root is done", &["start"]);
            std::iter::once(answers).chain(findings.into_iter().map(root_check)).collect()
        }
        Err(error) => {
            let missing = check("root", Verdict::Missing, error.message, &["start"]);
            let helper = config.beside.join("banger-root");
            vec![with_hint(missing, format!("sudo {} install", helper.display()))]
        }
    }
}

fn root_check(finding: Finding) -> Check {
    // Without these VMs start all the same, and lack a part.
    let part = ["network_dns", "network_resolvers", "network_uplink", "network_firewall"];
    let verdict = match (finding.ok, part.contains(&finding.code.as_str())) {
        (true, _) => Verdict::Ok,
        (false, true) => Verdict::Warning,
        (false, false) => Verdict::Missing,
    };
    let needed_for = if finding.code.starts_with("network") { "network" } else { "start" };
    let hint = finding.hint;
    Check { hint, ..check(&finding.code, verdict, finding.seen, &[needed_for]) }
}

fn mapper_check() -> Check {
    if Path::new(MAPPER).exists() {
        return check("device-mapper", Verdict::Ok, MAPPER, &["disks without copies"]);
    }
    with_hint(
        check(
            "device-mapper",
            Verdict::Warning,
            format!("{MAPPER} is not there, so disks are made in another way"),
            &["disks without copies"],
        ),
        "sudo modprobe dm-snapshot",
    )
}

fn qemu_checks(config: &HostConfig) -> Vec<Check> {
    let programs = config.programs();
    let companion = "`cargo install vhost-device-vsock --version 0.3.0`, or put the program \
                     beside bangerd";
    let user = check(
        "network.user",
        Verdict::Warning,
        "QEMU's user network lets a guest reach services on this host's loopback address as \
         10.0.2.2",
        &["isolation"],
    );
    vec![
        program("qemu-system-x86_64", "program.qemu", programs.qemu, "apt install qemu-system-x86"),
        program(
            "vhost-device-vsock",
            "program.vhost-device-vsock",
            programs.vhost_device_vsock,
            companion,
        ),
        with_hint(user, "use `--nat off` for guests you do not trust"),
    ]
}

fn program(name: &str, code: &str, found: Option<PathBuf>, hint: &str) -> Check {
    match found {
        Some(path) => check(code, Verdict::Ok, path.display().to_string(), &["start"]),
        None => {
            let seen = format!("{name} was not found");
            with_hint(check(code, Verdict::Missing, seen, &["start"]), hint)
        }
    }
}

fn tool(config: &HostConfig, name: &str, package: &str, needed_for: &[&str]) -> Check {
    let found = probe::find_program(name.as_ref(), &config.search_path);
    let hint = format!("apt install {package}");
    let mut check = program(name, &format!("program.{name}"), found, &hint);
    check.needed_for = needed_for.iter().map(|need| (*need).to_owned()).collect();
    check
}

fn disk_check(config: &HostConfig) -> Check {
    let free = probe::free_bytes(&config.layout.state).unwrap_or_default();
    let shown = banger_api::size::human_size(free);
    let seen = format!("{shown} free for {}", config.layout.state.display());
    if free >= ENOUGH {
        return check("disk.free", Verdict::Ok, seen, &["start"]);
    }
    let few = check("disk.free", Verdict::Warning, seen, &["start"]);
    with_hint(few, "free some space: VMs grow as they are written to")
}
