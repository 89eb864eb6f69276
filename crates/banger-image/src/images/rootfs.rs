//! Checks of a root file system: bootable, init, distribution; removes the machine's identity.

use serde::{Deserialize, Serialize};

use crate::ext4::{Content, Kind, Meta, Tree, TreeError};

/// The program that becomes process 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC's own init, or busybox with OpenRC's scripts.
    Openrc,
    /// runit.
    Runit,
    /// System V init.
    Sysvinit,
    /// busybox.
    Busybox,
    /// Something else at `/sbin/init`.
    Other,
}

impl Init {
    /// Its name in records and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Openrc => "openrc",
            Self::Runit => "runit",
            Self::Sysvinit => "sysvinit",
            Self::Busybox => "busybox",
            Self::Other => "other",
        }
    }
}

/// Paths of an init program, in the kernel's order (init/main.c) and where merged-/usr systems
/// keep systemd.
const INITS: [&str; 5] =
    ["sbin/init", "etc/init", "bin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd"];

/// The init of a tree, if it has one.
pub fn init(tree: &Tree) -> Option<Init> {
    let place = INITS.into_iter().find(|path| is_program(tree, path))?;
    let same =
        |path: &str| tree.resolve(path).is_some() && tree.resolve(path) == tree.resolve(place);
    let is_one_of = |paths: &[&str]| paths.iter().any(|path| same(path));
    Some(if is_one_of(&["usr/lib/systemd/systemd", "lib/systemd/systemd"]) {
        Init::Systemd
    } else if is_one_of(&["sbin/openrc-init", "usr/bin/openrc-init"]) {
        Init::Openrc
    } else if is_one_of(&["sbin/runit-init", "usr/bin/runit-init", "bin/runit-init"]) {
        Init::Runit
    } else if is_one_of(&["bin/busybox", "usr/bin/busybox", "sbin/busybox"]) {
        // Alpine: busybox starts OpenRC's scripts.
        if is_program(tree, "sbin/openrc") { Init::Openrc } else { Init::Busybox }
    } else if tree.get("etc/inittab").is_some() {
        Init::Sysvinit
    } else {
        Init::Other
    })
}

/// Whether the tree has opencode where the guest's search path leads to it.
pub fn has_opencode(tree: &Tree) -> bool {
    ["usr/local/bin/opencode", "usr/bin/opencode"].iter().any(|path| is_program(tree, path))
}

fn is_program(tree: &Tree, path: &str) -> bool {
    tree.resolve(path).is_some_and(|id| {
        let node = tree.node(id);
        matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o111 != 0
    })
}

/// Whether the tree has the folders of a system, or at least one program.
pub fn is_bootable(tree: &Tree) -> bool {
    let folder = |path: &str| {
        tree.resolve(path).is_some_and(|id| matches!(tree.node(id).kind, Kind::Folder(_)))
    };
    ["bin", "usr", "sbin"].into_iter().any(folder)
        || tree.live().any(|node| matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o111 != 0)
}

/// Removes what must differ between machines: empties the machine-id (so that systemd does not ask
/// first-boot questions; the agent writes the id of each VM), removes D-Bus's copy and the ssh host
/// keys. Returns the removed paths.
///
/// # Errors
/// A path in the tree that cannot be written.
pub fn anonymise(tree: &mut Tree) -> Result<Vec<String>, TreeError> {
    let mut removed = Vec::new();
    if tree.list("etc").iter().any(|name| name == "machine-id") || init(tree) == Some(Init::Systemd)
    {
        tree.remove("etc/machine-id");
        put_file(tree, "etc/machine-id", "", 0o444)?;
    }
    let dbus = "var/lib/dbus/machine-id";
    // A symbolic link to /etc/machine-id stays.
    let is_file = tree.get(dbus).is_some_and(|id| matches!(tree.node(id).kind, Kind::File(_)));
    if is_file && tree.remove(dbus) {
        removed.push(dbus.to_owned());
    }
    for name in tree.list("etc/ssh") {
        if name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub")) {
            let path = format!("etc/ssh/{name}");
            if tree.remove(&path) {
                removed.push(path);
            }
        }
    }
    for path in ["var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"] {
        if tree.remove(path) {
            removed.push(path.to_owned());
        }
    }
    Ok(removed)
}

/// Adds a text file owned by root.
///
/// # Errors
/// An invalid path.
pub fn put_file(tree: &mut Tree, path: &str, text: &str, mode: u16) -> Result<(), TreeError> {
    let content = Content::Inline(text.as_bytes().to_vec());
    tree.put(path, Kind::File(content), Meta::of_root(mode)).map(|_| ())
}

/// Facts about an image, from files of its archive.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `PRETTY_NAME` of os-release.
    pub system: Option<String>,
    /// Installed packages.
    pub packages: Option<u64>,
}

/// Maximum size of os-release and of a package database.
pub const FACT_BYTES: u64 = 64 << 20;

impl Facts {
    /// Whether a file contains facts.
    pub fn wants(path: &str) -> bool {
        matches!(
            path.trim_start_matches("./"),
            "etc/os-release"
                | "usr/lib/os-release"
                | "var/lib/dpkg/status"
                | "lib/apk/db/installed"
        )
    }

    /// Adds the facts of a file.
    pub fn take(&mut self, path: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let count = |wanted: &dyn Fn(&str) -> bool| {
            Some(text.lines().filter(|line| wanted(line)).count() as u64)
        };
        if path.ends_with("os-release") {
            let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
            self.system = name.map(|name| {
                let plain = name.trim_matches(['"', '\'']).chars().filter(|c| !c.is_control());
                plain.take(100).collect()
            });
        } else if path.ends_with("status") {
            self.packages = count(&|line| line == "Status: install ok installed");
        } else {
            self.packages = count(&|line| line.starts_with("P:"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn program(tree: &mut Tree, path: &str) {
        put_file(tree, path, "#!", 0o755).unwrap();
    }

    fn link(tree: &mut Tree, path: &str, target: &str) {
        tree.put(path, Kind::Symlink(target.into()), Meta::of_root(0o777)).unwrap();
    }

    #[test]
    fn every_init_is_detected_through_symbolic_links() {
        type Make = fn(&mut Tree);
        let cases: [(Option<Init>, Make); 8] = [
            (None, |_| {}),
            (Some(Init::Systemd), |tree| {
                program(tree, "usr/lib/systemd/systemd");
                link(tree, "lib", "usr/lib");
                link(tree, "sbin", "usr/sbin");
                link(tree, "usr/sbin/init", "/lib/systemd/systemd");
            }),
            (Some(Init::Openrc), |tree| {
                program(tree, "bin/busybox");
                program(tree, "sbin/openrc");
                link(tree, "sbin/init", "/bin/busybox");
            }),
            (Some(Init::Busybox), |tree| {
                program(tree, "bin/busybox");
                link(tree, "sbin/init", "../bin/busybox");
            }),
            (Some(Init::Runit), |tree| {
                program(tree, "usr/bin/runit-init");
                link(tree, "sbin", "usr/bin");
                link(tree, "usr/bin/init", "runit-init");
            }),
            (Some(Init::Sysvinit), |tree| {
                program(tree, "sbin/init");
                put_file(tree, "etc/inittab", "", 0o644).unwrap();
            }),
            (Some(Init::Other), |tree| program(tree, "bin/init")),
            (None, |tree| link(tree, "sbin/init", "/sbin/init")),
        ];
        for (wanted, make) in cases {
            let mut tree = Tree::new();
            make(&mut tree);
            assert_eq!(init(&tree), wanted);
        }
    }

    #[test]
    fn opencode_is_found_where_npm_links_it() {
        let mut tree = Tree::new();
        link(&mut tree, "usr/local/bin/opencode", "../lib/node_modules/opencode-ai/bin/opencode");
        assert!(!has_opencode(&tree), "a link without its target");
        program(&mut tree, "usr/local/lib/node_modules/opencode-ai/bin/opencode");
        assert!(has_opencode(&tree));
        let mut other = Tree::new();
        put_file(&mut other, "usr/bin/opencode", "", 0o644).unwrap();
        assert!(!has_opencode(&other), "not executable");
    }

    #[test]
    fn only_the_machine_identity_is_removed() {
        let mut tree = Tree::new();
        for path in [
            "etc/machine-id",
            "var/lib/dbus/machine-id",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "etc/ssh/sshd_config",
            "etc/ssh/ssh_host_note",
        ] {
            put_file(&mut tree, path, "secret", 0o600).unwrap();
        }
        assert_eq!(anonymise(&mut tree).unwrap().len(), 3);
        assert_eq!(tree.list("etc/ssh"), ["ssh_host_note", "sshd_config"]);
        assert!(tree.list("var/lib/dbus").is_empty());
        let id = tree.node(tree.get("etc/machine-id").unwrap());
        assert_eq!((&id.kind, id.meta.mode), (&Kind::File(Content::Inline(vec![])), 0o444));
        let mut plain = Tree::new();
        assert!(anonymise(&mut plain).unwrap().is_empty());
        assert!(plain.get("etc").is_none(), "nothing is added to an image without an identity");
    }

    #[test]
    fn a_tree_without_programs_is_not_bootable() {
        let mut tree = Tree::new();
        assert!(!is_bootable(&tree));
        put_file(&mut tree, "README", "", 0o644).unwrap();
        assert!(!is_bootable(&tree));
        let mut scratch = tree.clone();
        program(&mut scratch, "app");
        assert!(is_bootable(&scratch));
        tree.put("bin", Kind::Folder(BTreeMap::new()), Meta::of_root(0o755)).unwrap();
        assert!(is_bootable(&tree));
    }

    #[test]
    fn facts_are_counted() {
        let mut facts = Facts::default();
        let status = b"Package: a\nStatus: install ok installed\n\n\
            Package: b\nStatus: deinstall ok config-files\n";
        facts.take("./var/lib/dpkg/status", status);
        facts.take("etc/os-release", b"NAME=x\nPRETTY_NAME=\"Debian \x1b12\"\n");
        assert_eq!(facts, Facts { system: Some("Debian 12".into()), packages: Some(1) });
        facts.take("lib/apk/db/installed", b"P:a\nV:1\n\nP:b\n");
        assert_eq!(facts.packages, Some(2));
        assert!(Facts::wants("./etc/os-release") && !Facts::wants("etc/passwd"));
    }
}
