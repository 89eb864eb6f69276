//! Who this machine is: clock, entropy, host name, resolver, machine id.

use std::time::Duration;

use banger_agent_proto::boot::{GuestConfig, GuestFile, NetworkConfig, WriteWhen};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::log::BootLog;
use super::{etc_files, git_config};
use crate::beneath::{Folder, Links, Owner, split_last};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;
use crate::sys::entropy;

/// Largest file of /etc that is read to be changed, in bytes; block lists make `hosts` large.
const ETC_FILE_MAX: u64 = 64 * 1024 * 1024;

/// Resolution of the host's time in the configuration, in milliseconds.
const CLOCK_RESOLUTION_MS: u64 = 1;

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

/// Sets the clock if it is wrong. The host sent its time `unix_ms` within the last `round_trip`.
pub fn set_clock(unix_ms: u64, round_trip: Duration, log: &mut BootLog) {
    let round_trip_ms = u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX);
    if let Some(right_ms) = corrected_clock(wall_clock_ms(), unix_ms, round_trip_ms) {
        log.note(step_clock(right_ms));
    }
}

/// The time to set, in milliseconds since 1970; `None` if the clock may be right. The host's time
/// is now between `sent_ms` and `round_trip_ms` later: a clock within that is not made worse,
/// another one is set to the middle.
fn corrected_clock(guest_ms: u64, sent_ms: u64, round_trip_ms: u64) -> Option<u64> {
    let earliest = sent_ms.saturating_sub(CLOCK_RESOLUTION_MS);
    let latest = sent_ms.saturating_add(round_trip_ms).saturating_add(CLOCK_RESOLUTION_MS);
    let may_be_right = (earliest..=latest).contains(&guest_ms);
    (!may_be_right).then(|| sent_ms.saturating_add(round_trip_ms / 2))
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
    if let Err(fault) = root.make_inside(b"etc", Owner::ROOT, 0o755) {
        return log.warn(fault.chain());
    }
    let machine_id = format!("{}\n", config.machine_id);
    let name = config.hostname.as_bytes();
    let before = root.read(b"etc/hostname", ETC_FILE_MAX).unwrap_or_default();
    log.note(rewrite(root, "etc/hostname", |old| etc_files::hostname(old, name)));
    log.note(rewrite(root, "etc/hosts", |old| {
        etc_files::hosts(old, name, etc_files::name_in(&before))
    }));
    log.note(put(root, "etc/machine-id", machine_id.as_bytes(), 0o444));
    log.note(dbus_machine_id(root, &machine_id));
    if let Some(network) = config.network.as_ref().filter(|network| !network.dns.is_empty()) {
        log.note(replace_resolv_conf(root, network));
    }
}

/// Writes a file of the image if it does not say the same already: an unchanged file costs the
/// private layer nothing. A symlink is followed inside the image; one that leads nowhere is
/// replaced.
pub fn put(root: &Folder, path: &str, content: &[u8], mode: u32) -> Result<(), Fault> {
    let what = || format!("cannot write `/{path}`");
    let place = root.real_place(path.as_bytes()).or_else(|fault| {
        let (parent, name) = split_last(path.as_bytes()).ok_or(fault)?;
        Ok::<_, Fault>((root.make_inside(parent, Owner::ROOT, 0o755)?, name.to_vec()))
    });
    let (folder, name) = place?;
    put_at(&folder, &name, content, mode).context(what)
}

fn put_at(folder: &Folder, name: &[u8], content: &[u8], mode: u32) -> std::io::Result<()> {
    let is_file = folder.kind_of(name) == Some(FileType::RegularFile);
    if is_file && folder.read(name, ETC_FILE_MAX).is_ok_and(|is| is == content) {
        return Ok(());
    }
    // Owner and permissions of a file that is there stay.
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    let (owner, mode) = match stat {
        Ok(stat) if is_file => {
            (Owner { uid: stat.st_uid, gid: stat.st_gid }, stat.st_mode & 0o7777)
        }
        _ => (Owner::ROOT, mode),
    };
    folder.put(name, content, owner, mode)
}

/// Changes a file of the image.
fn rewrite(root: &Folder, path: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<(), Fault> {
    let old = read_or_empty(root, path)?;
    put(root, path, &change(&old), 0o644)
}

/// Changes a part of a file; see [`WriteWhen::Block`] and [`WriteWhen::GitVariables`].
pub fn put_part(root: &Folder, file: &GuestFile, part: &[u8]) -> Result<(), Fault> {
    let path = file.path.trim_start_matches('/');
    let old = read_or_empty(root, path)?;
    let new = match file.when {
        WriteWhen::GitVariables => git_config::with_variables(&old, part),
        _ => etc_files::with_block(&old, part),
    };
    // An empty file is as good as none, except to its user.
    if new == old
        || (old.is_empty() && file.when == WriteWhen::BlockInFile && !root.has(path.as_bytes()))
    {
        return Ok(());
    }
    if new.is_empty() {
        let (folder, name) = root.real_place(path.as_bytes())?;
        let removed = rustix::fs::unlinkat(&folder, &name, AtFlags::empty());
        return removed.context(|| format!("cannot remove `/{path}`"));
    }
    put(root, path, &new, file.mode)
}

/// What is missing is empty; a fault where replacing what cannot be read would lose it.
fn read_or_empty(root: &Folder, path: &str) -> Result<Vec<u8>, Fault> {
    match root.read(path.as_bytes(), ETC_FILE_MAX) {
        Ok(content) => Ok(content),
        // Missing, or a link that dangles or turns in circles.
        Err(error) if is_nowhere(&error) => Ok(Vec::new()),
        Err(error) => Err(error).context(|| format!("cannot read `/{path}`, which stays as it is")),
    }
}

fn is_nowhere(error: &std::io::Error) -> bool {
    let loops = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    error.kind() == std::io::ErrorKind::NotFound || loops
}

/// The link that most images have here leads to a resolver of their own, which does not know this
/// network: the link itself is replaced.
fn replace_resolv_conf(root: &Folder, network: &NetworkConfig) -> Result<(), Fault> {
    let old = read_or_empty(root, "etc/resolv.conf")?;
    let new = etc_files::resolv_conf(&old, &network.dns, &network.search);
    let etc = root.make_inside(b"etc", Owner::ROOT, 0o755)?;
    put_at(&etc, b"resolv.conf", &new, 0o644)
        .context(|| "cannot write `/etc/resolv.conf`".to_owned())
}

/// D-Bus of older systems has a copy of its own; where it is a link to /etc all is well.
fn dbus_machine_id(root: &Folder, machine_id: &str) -> Result<(), Fault> {
    let Ok(dbus) = root.folder(b"var/lib/dbus", Links::Inside) else { return Ok(()) };
    if dbus.kind_of(b"machine-id") != Some(FileType::RegularFile) {
        return Ok(());
    }
    put_at(&dbus, b"machine-id", machine_id.as_bytes(), 0o444)
        .context(|| "cannot write `/var/lib/dbus/machine-id`".to_owned())
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
    fn large_hosts_are_kept_and_unreadable_ones_left() {
        let (dir, root) = etc();
        let path = dir.path().join("etc/hosts");
        let large = "0.0.0.0 ad.example\n".repeat(100_000);
        std::fs::write(&path, &large).unwrap();
        assert!(large.len() > 1 << 20);
        rewrite(&root, "etc/hosts", |old| etc_files::hosts(old, b"vm", None)).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(new.contains(&large) && new.ends_with("127.0.1.1\tvm\n"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(rewrite(&root, "etc/hosts", |old| etc_files::hosts(old, b"vm", None)).is_err());
    }

    #[test]
    fn links_are_kept_and_their_targets_written() {
        use std::os::unix::fs::symlink;
        let (dir, root) = etc();
        let at = |path: &str| dir.path().join(path);
        symlink("/static/hosts", at("etc/hosts")).unwrap();
        symlink("hostname", at("etc/hostname")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", at("etc/resolv.conf")).unwrap();
        rewrite(&root, "etc/hosts", |old| etc_files::hosts(old, b"vm", None)).unwrap();
        put(&root, "etc/hostname", b"vm\n", 0o644).unwrap();
        replace_resolv_conf(&root, &network(&["10.0.2.3"], &[])).unwrap();
        assert!(std::fs::read_to_string(at("static/hosts")).unwrap().contains("vm"));
        assert!(at("etc/hosts").is_symlink());
        assert!(!at("etc/hostname").is_symlink(), "a loop is replaced");
        assert!(!at("etc/resolv.conf").is_symlink());
    }

    #[test]
    fn the_clock_is_set_unless_it_may_be_right() {
        for (guest, sent, round_trip, expected) in [
            (1_000_000, 1_000_000, 10, None),
            (1_000_010, 1_000_000, 10, None),
            (1_000_012, 1_000_000, 10, Some(1_000_005)),
            // A real-time clock has whole seconds.
            (1_000_000, 1_000_040, 6, Some(1_000_043)),
            (0, 1_700_000_000_000, 30, Some(1_700_000_000_015)),
            (1_700_000_000_000, 0, 0, Some(0)),
            (5, u64::MAX, u64::MAX, Some(u64::MAX)),
        ] {
            let set = corrected_clock(guest, sent, round_trip);
            assert_eq!(set, expected, "{guest} {sent} {round_trip}");
        }
    }

    #[test]
    fn only_sane_entropy_is_taken() {
        assert!(mix_entropy("not base64!").is_err());
        assert!(mix_entropy(&BASE64.encode([0; entropy::MAX_BYTES + 1])).is_err());
        assert!(mix_entropy("").is_ok());
    }

    fn etc() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Folder::open(dir.path().to_str().unwrap()).unwrap();
        (dir, root)
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let (dir, root) = etc();
        let path = dir.path().join("etc/hostname");
        std::fs::write(&path, "vm\n").unwrap();
        let before = path.metadata().unwrap().ino();
        put(&root, "etc/hostname", b"vm\n", 0o644).unwrap();
        assert_eq!(path.metadata().unwrap().ino(), before);
    }

    #[test]
    fn owner_and_permissions_of_a_file_stay() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let (dir, root) = etc();
        let path = dir.path().join("etc/hosts");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
        rewrite(&root, "etc/hosts", |old| [old, b"y"].concat()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"xy");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o664);
    }
}
