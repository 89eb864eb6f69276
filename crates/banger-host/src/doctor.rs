//! Checks of the host for `banger doctor`. Changes nothing.
//!
//! The requirements of the VMM that new VMs get are errors if they are missing: with KVM those of
//! Firecracker, or of QEMU where only its programs are there; without KVM those of QEMU.

use std::path::PathBuf;

use banger_api::Hint;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_image::images::confine;
use banger_image::trust::TrustSettings;
use banger_root::protocol::{Finding, Request};

use crate::probe::{self, Kvm};
use crate::{HostConfig, Privilege};

/// Free space in bytes below which there is a warning.
const ENOUGH: u64 = 1 << 30;

/// Version of the companion's patches that this build needs (docs/decisions/0014).
const COMPANION_PATCHES: u32 = 2;

/// Names of the VMMs.
const FIRECRACKER: &str = "firecracker";
const QEMU: &str = "qemu";

/// Checks without which Firecracker does not work and QEMU does.
const FIRECRACKER_ONLY: [&str; 3] = ["root", "program.firecracker", "cgroup2"];

/// All checks of the host. `vmm` is the one that new VMs get, or would get if its missing parts
/// were there.
pub async fn checks(config: &HostConfig, vmm: Option<&str>) -> Vec<Check> {
    let kvm = config.kvm();
    let mut checks = Vec::new();
    if kvm == Kvm::Usable || vmm == Some(FIRECRACKER) {
        let mut jailed = root_checks(config).await;
        if vmm == Some(QEMU) {
            checks.push(kvm_check(&config.kvm_for_qemu(), vmm));
            jailed.iter_mut().for_each(not_needed_for_qemu);
            checks.extend(jailed);
            checks.extend(qemu_checks(config).await);
        } else {
            checks.push(kvm_check(&kvm, vmm));
            checks.extend(jailed);
        }
        checks.push(mapper_check(config).await);
    } else {
        checks.push(kvm_check(&kvm, vmm));
        checks.extend(qemu_checks(config).await);
    }
    checks.push(tool(config, "mmdebstrap", "mmdebstrap", &["image pull"]));
    if config.privilege == Privilege::User {
        checks.push(tool(config, "newuidmap", "uidmap", &["image pull"]));
        checks.push(subordinate_ids());
    }
    checks.push(tool(config, "apt-get", "apt", &["kernel pull"]));
    checks.push(tool(config, "dpkg-deb", "dpkg", &["kernel pull"]));
    checks.push(confinement_check(confine::unsupported()));
    checks.extend(trust_check(&config.trust));
    checks.push(disk_check(config));
    checks
}

/// The files of `[trust]`, if there are any.
fn trust_check(trust: &TrustSettings) -> Option<Check> {
    if *trust == TrustSettings::default() {
        return None;
    }
    let needed_for = ["image pull", "kernel pull"];
    Some(match trust.check() {
        Ok(()) => check("trust", Verdict::Ok, "catalogs and keys are in order", &needed_for),
        Err(error) => {
            let error = banger_image::advice::trust(&error);
            let mut check = check("trust", Verdict::Missing, error.line(), &needed_for);
            check.hints = error.hints;
            check
        }
    })
}

/// The confinement of the process that reads images.
fn confinement_check(unsupported: Option<&str>) -> Check {
    let (code, needed_for) = ("images.confinement", ["isolation"]);
    match unsupported {
        None => {
            let seen = "the process that reads images is confined by Landlock and seccomp";
            check(code, Verdict::Ok, seen, &needed_for)
        }
        Some(missing) => {
            let seen = format!(
                "this kernel has no {missing}: a fault in reading an image could do more harm"
            );
            check(code, Verdict::Warning, seen, &needed_for)
        }
    }
}

/// Turns a missing requirement of Firecracker into a warning.
fn not_needed_for_qemu(check: &mut Check) {
    if check.verdict == Verdict::Missing && FIRECRACKER_ONLY.contains(&check.code.as_str()) {
        check.verdict = Verdict::Warning;
        check.seen = format!("{}; VMs run under QEMU", check.seen);
    }
}

fn check(code: &str, verdict: Verdict, seen: impl Into<String>, needed_for: &[&str]) -> Check {
    let needed_for = needed_for.iter().map(|need| (*need).to_owned()).collect();
    Check { code: code.into(), verdict, seen: seen.into(), hints: Vec::new(), needed_for }
}

fn with_hint(mut check: Check, hint: impl Into<Hint>) -> Check {
    check.hints.push(hint.into());
    check
}

fn kvm_check(kvm: &Kvm, vmm: Option<&str>) -> Check {
    match kvm {
        Kvm::Usable => check("kvm", Verdict::Ok, "KVM works", &["speed"]),
        Kvm::Unusable(why) if vmm == Some(FIRECRACKER) => {
            let seen = format!("{why}: Firecracker, which the configuration asks for, needs it");
            check("kvm", Verdict::Missing, seen, &["start"])
        }
        Kvm::Unusable(why) => {
            let seen = format!("{why}: VMs run under software emulation, which is slower");
            check("kvm", Verdict::Warning, seen, &["speed"])
        }
    }
}

/// The helper's checks; a warning if the helper is not available.
async fn root_checks(config: &HostConfig) -> Vec<Check> {
    match config.helper.findings().await {
        Ok(findings) => {
            let answers = check("root", Verdict::Ok, "what needs root is done", &["start"]);
            std::iter::once(answers).chain(findings.into_iter().map(root_check)).collect()
        }
        Err(error) => {
            let missing = check("root", Verdict::Missing, error.message, &["start"]);
            let helper = config.beside.join("banger-root");
            let program = Some(helper.display().to_string());
            vec![with_hint(missing, Hint::InstallHelper { program })]
        }
    }
}

fn root_check(finding: Finding) -> Check {
    // VMs start without these, with a restriction.
    let part = ["network_dns", "network_resolvers", "network_uplink", "network_firewall"];
    let verdict = match (finding.ok, part.contains(&finding.code.as_str())) {
        (true, _) => Verdict::Ok,
        (false, true) => Verdict::Warning,
        (false, false) => Verdict::Missing,
    };
    let needed_for = if finding.code.starts_with("network") { "network" } else { "start" };
    let hints = finding.hints.0.into_iter().map(Hint::from).collect();
    Check { hints, ..check(&finding.code, verdict, finding.seen, &[needed_for]) }
}

/// Whether the kernel can make copy-on-write devices, as the helper found.
async fn mapper_check(config: &HostConfig) -> Check {
    let (code, needed_for) = ("device-mapper", ["disks without copies"]);
    match config.helper.ask(Request::SnapshotReady, Vec::new()).await {
        Ok(_) => check(code, Verdict::Ok, "device-mapper makes snapshots", &needed_for),
        Err(error) => {
            let seen = format!("{}, so disks are made in another way", error.line());
            let mut check = check(code, Verdict::Warning, seen, &needed_for);
            check.hints = error.hints;
            check
        }
    }
}

async fn qemu_checks(config: &HostConfig) -> Vec<Check> {
    let programs = config.programs();
    let user = check(
        "network.user",
        Verdict::Warning,
        "QEMU's user network lets a guest reach services on this host's loopback address as \
         10.0.2.2",
        &["isolation"],
    );
    vec![
        program(
            "qemu-system-x86_64",
            "program.qemu",
            programs.qemu,
            Hint::install("qemu-system-x86"),
        ),
        companion_check(programs.vhost_device_vsock).await,
        with_hint(user, SetupAdvice::TurnNatOff),
    ]
}

/// The companion must have banger's patch: the original stops serving its guest when a client
/// disconnects at the wrong moment.
async fn companion_check(found: Option<PathBuf>) -> Check {
    let version = match &found {
        Some(path) => probe::version(path).await,
        None => None,
    };
    let check = program(
        "vhost-device-vsock",
        "program.vhost-device-vsock",
        found,
        SetupAdvice::InstallCompanion,
    );
    judge_companion(check, version.as_deref())
}

fn judge_companion(mut found: Check, version: Option<&str>) -> Check {
    // `vhost-device-vsock 0.3.0+banger.N`: the version of the patches.
    let number = version.and_then(|version| version.rsplit_once("+banger."));
    let number = number.and_then(|(_, number)| number.trim().parse::<u32>().ok());
    let patched = number.is_some_and(|number| number >= COMPANION_PATCHES);
    if found.verdict != Verdict::Ok || patched {
        return found;
    }
    found.verdict = Verdict::Warning;
    let seen = format!(
        "{}: not built with the present patches of banger: a guest may become unreachable after a \
         time-out, or never reach the host at boot",
        found.seen
    );
    found.seen = seen;
    with_hint(found, SetupAdvice::InstallCompanion)
}

fn program(name: &str, code: &str, found: Option<PathBuf>, hint: impl Into<Hint>) -> Check {
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
    packaged(name, found, package, needed_for)
}

/// The check for a program of a Debian package.
pub fn packaged(name: &str, found: Option<PathBuf>, package: &str, needed_for: &[&str]) -> Check {
    let hint = Hint::install(package);
    let mut check = program(name, &format!("program.{name}"), found, hint);
    check.needed_for = needed_for.iter().map(|need| (*need).to_owned()).collect();
    check
}

/// mmdebstrap unpacks as an ordinary user in a user namespace (`--mode=unshare`), whose ids come
/// from subuid(5) and subgid(5).
fn subordinate_ids() -> Check {
    let uid = rustix::process::getuid().as_raw();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let files = ["/etc/subuid", "/etc/subgid"];
    let lacking: Vec<&str> =
        files.into_iter().filter(|file| !has_ids(&read(file), &passwd, uid)).collect();
    let needed = &["image pull"];
    if lacking.is_empty() {
        return check("subordinate_ids", Verdict::Ok, files.join(", "), needed);
    }
    let seen = format!("{} has no range of ids for uid {uid}", lacking.join(" and "));
    let hint = SetupAdvice::AddSubordinateIds { user: None };
    with_hint(check("subordinate_ids", Verdict::Missing, seen, needed), hint)
}

/// Whether a file in the format of subuid(5) has at least 65536 ids for a user, by name or number.
fn has_ids(file: &str, passwd: &str, uid: u32) -> bool {
    let number = uid.to_string();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        (fields.nth(1) == Some(number.as_str())).then_some(name)
    };
    let mut names: Vec<String> = passwd.lines().filter_map(named).collect();
    names.push(number.clone());
    file.lines().any(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.parse::<u64>().ok());
        names.iter().any(|name| name == owner) && count.is_some_and(|count| count >= 65_536)
    })
}

fn disk_check(config: &HostConfig) -> Check {
    let free = probe::free_bytes(&config.layout.state).unwrap_or_default();
    let shown = banger_api::size::human_size(free);
    let seen = format!("{shown} free for {}", config.layout.state.display());
    if free >= ENOUGH {
        return check("disk.free", Verdict::Ok, seen, &["start"]);
    }
    let few = check("disk.free", Verdict::Warning, seen, &["start"]);
    with_hint(few, Hint::FreeSpace { path: Some(config.layout.state.display().to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_belong_to_a_name_or_a_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        for (file, has) in [
            ("ann:100000:65536\n", true),
            ("bob:1:65536\n1000:100000:65536\n", true),
            ("bob:100000:65536\n", false),
            ("ann:100000:1000\n", false),
            ("ann:100000\n", false),
            ("", false),
        ] {
            assert_eq!(has_ids(file, passwd, 1000), has, "{file:?}");
        }
    }

    #[test]
    fn parts_that_only_firecracker_needs_are_warnings_where_qemu_is_chosen() {
        let is = |code: &str, there: bool| {
            let verdict = if there { Verdict::Ok } else { Verdict::Missing };
            check(code, verdict, "seen", &["start"])
        };
        let judge = |mut check: Check| {
            not_needed_for_qemu(&mut check);
            (check.verdict, check.seen)
        };
        let (verdict, seen) = judge(is("program.firecracker", false));
        assert_eq!((verdict, seen.as_str()), (Verdict::Warning, "seen; VMs run under QEMU"));
        assert_eq!(judge(is("root", true)), (Verdict::Ok, "seen".to_owned()));
        assert_eq!(judge(is("network_nft", false)).0, Verdict::Missing);
    }

    #[test]
    fn a_kernel_that_cannot_confine_is_a_warning() {
        assert_eq!(confinement_check(None).verdict, Verdict::Ok);
        let check = confinement_check(Some("Landlock"));
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.seen.starts_with("this kernel has no Landlock:"), "{}", check.seen);
    }

    #[test]
    fn a_companion_without_the_patches_is_a_warning() {
        let found = |path: Option<&str>| {
            program(
                "vhost-device-vsock",
                "program.vhost-device-vsock",
                path.map(Into::into),
                Hint::Retry,
            )
        };
        let judge = |version| judge_companion(found(Some("/usr/bin/v")), version);
        let patched = judge(Some("vhost-device-vsock 0.3.0+banger.2\n"));
        assert_eq!((patched.verdict, patched.hint()), (Verdict::Ok, None));
        let old = Some("vhost-device-vsock 0.3.0+banger.1");
        for version in [Some("vhost-device-vsock 0.3.0"), old, None] {
            let check = judge(version);
            assert_eq!(check.verdict, Verdict::Warning, "{version:?}");
            assert_eq!(check.hints, [SetupAdvice::InstallCompanion.into()]);
        }
        assert_eq!(judge_companion(found(None), None).verdict, Verdict::Missing);
    }
}
