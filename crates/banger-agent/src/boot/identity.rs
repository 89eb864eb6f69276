//! Who this machine is: clock, entropy, host name, resolver, machine id.

use banger_agent_proto::boot::{GuestConfig, NetworkConfig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::FileType;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::log::BootLog;
use crate::beneath::{Folder, Links, Owner};
use crate::fault::{Context, Fault};
use crate::sys::entropy;

/// Largest file of /etc that is read to be changed.
const ETC_FILE_MAX: u64 = 1024 * 1024;

/// How far the clock may be off before it is set, in milliseconds: above what the configuration
/// needs to travel, so that a good clock is not made worse.
const CLOCK_TOLERANCE_MS: u64 = 100;

/// Milliseconds since 1970 by this machine's clock; 0 before 1970.
pub fn wall_clock_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Sets the wall clock.
///
/// # Errors
/// As clock_settime(2); a time out of its range.
pub fn step_clock(unix_ms: u64) -> Result<(), Fault> {
    let seconds = i64::try_from(unix_ms / 1000)
        .map_err(|_| Fault::new(format!("{unix_ms} ms since 1970 is no date")))?;
    let time = Timespec { tv_sec: seconds, tv_nsec: (unix_ms % 1000 * 1_000_000) as _ };
    clock_settime(ClockId::Realtime, time).context(|| "cannot set the clock".to_owned())
}

/// Sets the clock if it is off.
pub fn set_clock(unix_ms: u64, log: &mut BootLog) {
    if unix_ms.abs_diff(wall_clock_ms()) > CLOCK_TOLERANCE_MS {
        log.note(step_clock(unix_ms));
    }
}

/// Mixes the host's entropy in, so that two machines from one image never share keys.
pub fn add_entropy(encoded: &str, log: &mut BootLog) {
    log.note(mix_entropy(encoded));
}

/// Decodes and mixes in entropy as the protocol carries it.
///
/// # Errors
/// Not base64, more than the protocol allows, or the kernel's.
pub fn mix_entropy(encoded: &str) -> Result<(), Fault> {
    let bytes =
        BASE64.decode(encoded).ok().filter(|bytes| bytes.len() <= entropy::MAX_BYTES).ok_or_else(
            || {
                let max = entropy::MAX_BYTES;
                Fault::new(format!("the entropy is not at most {max} bytes as base64"))
            },
        )?;
    if bytes.is_empty() {
        return Ok(());
    }
    entropy::add(&bytes).context(|| "cannot mix entropy in".to_owned())
}

/// Writes what makes this machine itself into /etc. Nothing here stops a boot: a machine with a
/// full or read-only disk is still worth reaching.
pub fn write(root: &Folder, config: &GuestConfig, log: &mut BootLog) {
    log.note(
        rustix::system::sethostname(config.hostname.as_bytes())
            .context(|| format!("cannot set the host name `{}`", config.hostname)),
    );
    let etc = match root.make_folders(b"etc", Owner::ROOT, 0o755) {
        Ok(etc) => etc,
        Err(fault) => return log.warn(fault.chain()),
    };
    log.note(put(&etc, "hostname", &format!("{}\n", config.hostname), 0o644));
    let hosts = etc.read(b"hosts", ETC_FILE_MAX).unwrap_or_default();
    let hosts = hosts_with(&String::from_utf8_lossy(&hosts), &config.hostname);
    log.note(put(&etc, "hosts", &hosts, 0o644));
    log.note(put(&etc, "machine-id", &format!("{}\n", config.machine_id), 0o444));
    log.note(dbus_machine_id(root, &config.machine_id));
    if let Some(resolv) = config.network.as_ref().and_then(resolv_conf) {
        log.note(put(&etc, "resolv.conf", &resolv, 0o644));
    }
}

/// Writes a file of /etc if it does not say the same already: an unchanged file costs the private
/// layer nothing.
fn put(etc: &Folder, name: &str, content: &str, mode: u32) -> Result<(), Fault> {
    let is_file = etc.kind_of(name.as_bytes()) == Some(FileType::RegularFile);
    if is_file && etc.read(name.as_bytes(), ETC_FILE_MAX).is_ok_and(|is| is == content.as_bytes()) {
        return Ok(());
    }
    etc.put(name.as_bytes(), content.as_bytes(), Owner::ROOT, mode)
        .context(|| format!("cannot write `/etc/{name}`"))
}

/// D-Bus of older systems has a copy of its own; where it is a link to /etc all is well.
fn dbus_machine_id(root: &Folder, machine_id: &str) -> Result<(), Fault> {
    let Ok(dbus) = root.folder(b"var/lib/dbus", Links::Refuse) else { return Ok(()) };
    if dbus.kind_of(b"machine-id") != Some(FileType::RegularFile) {
        return Ok(());
    }
    put(&dbus, "machine-id", &format!("{machine_id}\n"), 0o444)
}

/// hosts(5) with our name at 127.0.1.1 (Debian's place for it) and a `localhost`; all other lines
/// stay.
fn hosts_with(hosts: &str, hostname: &str) -> String {
    let address = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let mut lines: Vec<String> =
        hosts.lines().filter(|line| address(line) != "127.0.1.1").map(str::to_owned).collect();
    if !lines.iter().any(|line| address(line) == "::1") {
        lines.insert(0, "::1\tlocalhost ip6-localhost ip6-loopback".to_owned());
    }
    if !lines.iter().any(|line| address(line) == "127.0.0.1") {
        lines.insert(0, "127.0.0.1\tlocalhost".to_owned());
    }
    lines.push(format!("127.0.1.1\t{hostname}"));
    lines.join("\n") + "\n"
}

/// resolv.conf(5), or `None` where the host names no resolver.
fn resolv_conf(network: &NetworkConfig) -> Option<String> {
    if network.dns.is_empty() {
        return None;
    }
    let mut lines = Vec::new();
    if !network.search.is_empty() {
        lines.push(format!("search {}", network.search.join(" ")));
    }
    lines.extend(network.dns.iter().map(|server| format!("nameserver {server}")));
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(dns: &[&str], search: &[&str]) -> NetworkConfig {
        NetworkConfig {
            mac: "52:54:00:12:34:56".into(),
            addresses: Vec::new(),
            gateway: None,
            dns: dns.iter().map(ToString::to_string).collect(),
            search: search.iter().map(ToString::to_string).collect(),
            mtu: None,
        }
    }

    #[test]
    fn hosts_keep_what_was_there() {
        let old = "127.0.0.1 localhost\n# mine\n10.0.0.1 db\n127.0.1.1 old.example old\n";
        let new = hosts_with(old, "vm");
        assert!(new.contains("127.0.0.1 localhost\n# mine\n10.0.0.1 db\n"));
        assert!(new.ends_with("127.0.1.1\tvm\n"));
        assert!(!new.contains("old"));
        assert_eq!(hosts_with(&new, "vm"), new, "a second boot changes nothing");
    }

    #[test]
    fn hosts_from_nothing() {
        let hosts = hosts_with("", "vm");
        assert!(hosts.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost"), "{hosts}");
    }

    #[test]
    fn resolver() {
        assert_eq!(resolv_conf(&network(&[], &["a"])), None);
        assert_eq!(
            resolv_conf(&network(&["10.0.2.3", "1.1.1.1"], &["vm", "lan"])).unwrap(),
            "search vm lan\nnameserver 10.0.2.3\nnameserver 1.1.1.1\n"
        );
    }

    #[test]
    fn only_sane_entropy_is_taken() {
        assert!(mix_entropy("not base64!").is_err());
        assert!(mix_entropy(&BASE64.encode([0; entropy::MAX_BYTES + 1])).is_err());
        assert!(mix_entropy("").is_ok());
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let etc = Folder::open(dir.path().to_str().unwrap()).unwrap();
        let path = dir.path().join("hostname");
        std::fs::write(&path, "vm\n").unwrap();
        let before = path.metadata().unwrap().ino();
        put(&etc, "hostname", "vm\n", 0o644).unwrap();
        assert_eq!(path.metadata().unwrap().ino(), before);
    }
}
