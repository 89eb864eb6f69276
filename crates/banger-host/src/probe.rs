//! Facts about the host: programs, KVM, memory, free space. [`crate::host`] makes decisions.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use banger_sys::programs::find_program;

/// Time limit for a program to print its version.
const VERSION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Whether KVM can run guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// It can.
    Usable,
    /// It cannot, for this reason.
    Unusable(String),
}

/// Checks `/dev/kvm` and the CPU's flags: the device may open and not work if the CPU has neither
/// vmx nor svm (nested paravirtual hosts).
pub fn kvm() -> Kvm {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    judge_kvm(opened.map(|_| ()).map_err(|error| error.to_string()), &cpuinfo)
}

/// As [`kvm`], for VMMs started by root, each of which gets its own `/dev/kvm`: the device must
/// only exist.
pub fn kvm_for_root() -> Kvm {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let found = fs::metadata("/dev/kvm");
    judge_kvm(found.map(|_| ()).map_err(|error| error.to_string()), &cpuinfo)
}

/// The same for a child of this process, which is root, that runs as a uid of its own and may be in
/// one more group.
pub fn kvm_for_child() -> Kvm {
    match kvm() {
        Kvm::Usable => match kvm_access() {
            Some(KvmAccess::Nobody) => Kvm::Unusable(
                "/dev/kvm is for root alone: give it a group and mode 0660, as udev does".into(),
            ),
            _ => Kvm::Usable,
        },
        unusable => unusable,
    }
}

/// The group that may use KVM, where not everybody may.
pub fn kvm_group() -> Option<u32> {
    match kvm_access() {
        Some(KvmAccess::Group(group)) => Some(group),
        _ => None,
    }
}

/// Who beside root may use KVM.
#[derive(Debug, PartialEq, Eq)]
enum KvmAccess {
    Everybody,
    Group(u32),
    Nobody,
}

fn kvm_access() -> Option<KvmAccess> {
    let meta = fs::metadata("/dev/kvm").ok()?;
    Some(judge_kvm_access(meta.mode(), meta.gid()))
}

/// Root's group is given to nobody.
fn judge_kvm_access(mode: u32, group: u32) -> KvmAccess {
    match mode {
        mode if mode & 0o006 == 0o006 => KvmAccess::Everybody,
        mode if mode & 0o060 == 0o060 && group != 0 => KvmAccess::Group(group),
        _ => KvmAccess::Nobody,
    }
}

fn judge_kvm(opened: Result<(), String>, cpuinfo: &str) -> Kvm {
    if let Err(error) = opened {
        return Kvm::Unusable(format!("/dev/kvm cannot be opened: {error}"));
    }
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        return Kvm::Usable;
    }
    Kvm::Unusable(
        "/dev/kvm is there, but the CPU has neither vmx nor svm, so it would not work".into(),
    )
}

/// Bytes of memory of this host, from `/proc/meminfo`.
pub fn memory_bytes() -> u64 {
    parse_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Number of CPUs this process may use.
pub fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Boot id of this host: `/proc/sys/kernel/random/boot_id`.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// First line of a program's output for `--version`; `None` at the time limit.
pub async fn version(program: &Path) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    let line = output.stdout.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

/// Free bytes for this user in the file system of `folder`: statvfs(3).
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A process with this real uid, proc_pid_status(5); zombies do not count.
///
/// getpriority(2) tells in one system call whether there is any, which is the normal case at a
/// start; reading `/proc` takes milliseconds on a host with hundreds of processes.
pub fn process_of(uid: u32) -> Option<u32> {
    let any = rustix::process::getpriority_user(rustix::process::Uid::from_raw(uid));
    if matches!(any, Err(rustix::io::Errno::SRCH)) {
        return None;
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut pids = pids.filter(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        runs_as(&status, uid)
    });
    pids.next()
}

fn runs_as(status: &str, uid: u32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let real = field("Uid:").and_then(|ids| ids.split_ascii_whitespace().next()?.parse().ok());
    let ended = field("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']));
    real == Some(uid) && !ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_their_uid() {
        let status = "Name:\tx\nState:\tS (sleeping)\nUid:\t70001\t70001\t70001\t70001\n";
        assert!(runs_as(status, 70001));
        assert!(!runs_as(status, 7000));
        assert!(!runs_as(&status.replace("S (sleeping)", "Z (zombie)"), 70001));
        assert!(!runs_as("", 0));
        let own = rustix::process::getuid().as_raw();
        assert!(process_of(own).is_some());
        assert_eq!(process_of(u32::MAX - 7), None);
    }

    #[test]
    fn the_cpu_flag_decides_not_the_device() {
        assert_eq!(judge_kvm(Ok(()), "x\nflags\t\t: fpu vmx sse\n"), Kvm::Usable);
        assert!(matches!(judge_kvm(Ok(()), "flags : fpu\n"), Kvm::Unusable(_)));
        assert!(matches!(judge_kvm(Err("denied".into()), "flags : svm\n"), Kvm::Unusable(_)));
    }

    #[test]
    fn a_group_of_its_own_may_use_kvm_and_roots_never() {
        assert_eq!(judge_kvm_access(0o020_666, 36), KvmAccess::Everybody);
        assert_eq!(judge_kvm_access(0o020_660, 36), KvmAccess::Group(36));
        assert_eq!(judge_kvm_access(0o020_660, 0), KvmAccess::Nobody);
        assert_eq!(judge_kvm_access(0o020_640, 36), KvmAccess::Nobody);
        assert_eq!(judge_kvm_access(0o020_600, 36), KvmAccess::Nobody);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(parse_memory("MemTotal:       24000 kB\nMemFree: 1 kB\n"), 24000 * 1024);
        assert_eq!(parse_memory("nonsense"), 0);
    }

    #[test]
    fn programs_are_found_in_path_and_by_path() {
        assert!(find_program(Path::new("sh"), "/nonexistent:/bin:/usr/bin").is_some());
        assert!(find_program(Path::new("no-such-program"), "/bin:/usr/bin").is_none());
        assert!(find_program(Path::new("/bin/sh"), "").is_some());
        assert!(find_program(Path::new("/etc/passwd"), "").is_none());
    }
}
