//! Configuration under /run that keeps the image's own services off the interface we configure, and
//! gives the machine its own ssh host keys. /run is fresh at each boot, so the image stays as it
//! is.

use banger_agent_proto::boot::GuestConfig;
use rustix::fs::symlinkat;

use super::handoff::Init;
use super::log::BootLog;
use super::network;
use crate::beneath::{Folder, Owner, split_last};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;

/// Units that wait for a network of another service, or configure one of their own. A mask in
/// /run wins over the image's unit in /usr, and loses to the user's own in /etc.
const MASKED: [&str; 9] = [
    "cloud-config.service",
    "cloud-final.service",
    "cloud-init-local.service",
    "cloud-init-network.service",
    "cloud-init.service",
    "dhcpcd.service",
    "NetworkManager-wait-online.service",
    "systemd-networkd-wait-online.service",
    "wicked.service",
];

/// Makes the host keys of an image that has none, before sshd looks for them.
const HOST_KEYS_UNIT: &str = "\
[Unit]
Description=SSH host keys of this machine
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
ConditionPathExists=/usr/bin/ssh-keygen

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
";

/// Added to each way an image may start sshd.
const HOST_KEYS_DROP_IN: &str = "\
[Unit]
Wants=banger-ssh-host-keys.service
After=banger-ssh-host-keys.service
";

/// A file, link or folder to create under the new root.
#[derive(Debug, PartialEq, Eq)]
enum ConfigEntry {
    File { path: String, content: String },
    Mask { path: String },
}

/// Writes the configuration for this image and interface.
pub fn write(root: &Folder, config: &GuestConfig, init: &Init, log: &mut BootLog) {
    let interface = config.network.as_ref().and_then(|network| {
        let name = network::interface_by_mac(&network.mac)?;
        Some(Interface { name, mac: network.mac.clone() })
    });
    let image = Image {
        // The folder alone tells programs that systemd runs: never made for another init.
        systemd: init.is_systemd(),
        network_manager: root.has(b"etc/NetworkManager"),
        ifupdown: root.has(b"etc/network/interfaces"),
        ssh: root.has(b"etc/ssh"),
    };
    for note in config_entries(&image, interface.as_ref()) {
        log.note(make(root, &note));
    }
}

/// What the image uses.
struct Image {
    systemd: bool,
    network_manager: bool,
    ifupdown: bool,
    ssh: bool,
}

/// The one interface.
struct Interface {
    name: String,
    mac: String,
}

fn config_entries(image: &Image, interface: Option<&Interface>) -> Vec<ConfigEntry> {
    let file = |path: &str, content: String| ConfigEntry::File { path: path.into(), content };
    let mut notes = Vec::new();
    if let Some(Interface { name, mac }) = interface {
        if image.systemd {
            notes.extend(
                MASKED.map(|unit| ConfigEntry::Mask { path: format!("run/systemd/system/{unit}") }),
            );
            // The first match by file name wins, in whichever folder it lies.
            notes.push(file(
                "run/systemd/network/00-banger.network",
                format!("[Match]\nMACAddress={mac}\n\n[Link]\nUnmanaged=yes\n"),
            ));
        }
        if image.network_manager {
            notes.push(file(
                "run/NetworkManager/conf.d/00-banger.conf",
                format!("[device-banger]\nmatch-device=mac:{mac}\nmanaged=0\n"),
            ));
        }
        if image.ifupdown {
            // `ifup -a` skips interfaces that are recorded as up: Debian has a file for each
            // interface, busybox and ifupdown-ng have one for all.
            notes.push(file(&format!("run/network/ifstate.{name}"), format!("{name}\n")));
            notes.push(file("run/ifstate", format!("{name}={name}\n")));
        }
    }
    if image.systemd {
        // The root is writable from the start, so journald can open its journal on disk at once
        // instead of in /run first (systemd-journald.service(8)).
        notes.push(file("run/systemd/journal/flushed", String::new()));
    }
    if image.systemd && image.ssh {
        notes.push(file(
            "run/systemd/system/banger-ssh-host-keys.service",
            HOST_KEYS_UNIT.to_owned(),
        ));
        for unit in ["ssh", "ssh@", "sshd", "sshd@"] {
            let path = format!("run/systemd/system/{unit}.service.d/banger.conf");
            notes.push(file(&path, HOST_KEYS_DROP_IN.to_owned()));
        }
    }
    notes
}

fn make(root: &Folder, note: &ConfigEntry) -> Result<(), Fault> {
    let path = match note {
        ConfigEntry::File { path, .. } | ConfigEntry::Mask { path } => path,
    };
    let what = || format!("cannot write `/{path}`");
    let (parent, name) = split_last(path.as_bytes()).unwrap_or((b"", path.as_bytes()));
    let folder = root.make_inside(parent, Owner::ROOT, 0o755)?;
    match note {
        ConfigEntry::File { content, .. } => {
            folder.put(name, content.as_bytes(), Owner::ROOT, 0o644).context(what)
        }
        ConfigEntry::Mask { .. } => symlinkat("/dev/null", &folder, name).context(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> Interface {
        Interface { name: "eth0".into(), mac: "52:54:00:12:34:56".into() }
    }

    fn paths(image: &Image, interface: Option<&Interface>) -> Vec<String> {
        config_entries(image, interface)
            .into_iter()
            .map(|note| match note {
                ConfigEntry::File { path, .. } | ConfigEntry::Mask { path } => path,
            })
            .collect()
    }

    #[test]
    fn without_systemd_nothing_pretends_it_runs() {
        let image = Image { systemd: false, network_manager: true, ifupdown: true, ssh: true };
        let paths = paths(&image, Some(&interface()));
        assert!(paths.iter().all(|path| !path.starts_with("run/systemd")), "{paths:?}");
        assert!(paths.contains(&"run/network/ifstate.eth0".to_owned()));
    }

    #[test]
    fn without_a_network_only_journal_and_host_keys_remain() {
        let image = Image { systemd: true, network_manager: true, ifupdown: true, ssh: true };
        let journal = "run/systemd/journal/flushed".to_owned();
        let paths_without = paths(&image, None);
        let of_both = |path: &String| path.contains("ssh") || *path == journal;
        assert!(paths_without.iter().all(of_both), "{paths_without:?}");
        let bare = Image { systemd: true, network_manager: false, ifupdown: false, ssh: false };
        assert_eq!(paths(&bare, None), [journal]);
    }

    #[test]
    fn notes_are_written_where_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::open(dir.path().to_str().unwrap()).unwrap();
        let image = Image { systemd: true, network_manager: true, ifupdown: true, ssh: true };
        let all = config_entries(&image, Some(&interface()));
        for note in &all {
            // Files of the superuser can only be made by the superuser.
            if rustix::process::geteuid().is_root() || matches!(note, ConfigEntry::Mask { .. }) {
                make(&root, note).unwrap();
            }
        }
        let mask = dir.path().join("run/systemd/system/cloud-init.service");
        assert_eq!(std::fs::read_link(mask).unwrap().to_str(), Some("/dev/null"));
    }
}
