//! Removes from a tree what belongs to the machine that wrote it, or can be fetched again: the
//! counterpart of the script that an image build runs in its guest.

use super::rootfs;
use crate::ext4::{Content, Kind, NodeId, ROOT, Tree, TreeError};

/// Folders that become empty.
const EMPTIED: [&str; 10] = [
    "tmp",
    "var/tmp",
    "var/lib/apt/lists",
    "var/cache/apk",
    "var/cache/xbps",
    "var/cache/dnf",
    "var/cache/yum",
    "var/log/journal",
    "var/log/banger",
    "var/lib/seedrng",
];
/// Files of package caches, leases and histories: folder, and the end of their names.
const FILES: [(&str, &str); 4] = [
    ("var/cache/apt", ".bin"),
    ("var/cache/apt/archives", ".deb"),
    ("var/lib/dhcp", ".leases"),
    ("var/lib/dhcpcd", ".lease"),
];
/// Seeds and histories by their paths.
const REMOVED: [&str; 2] = ["var/lib/misc/random-seed", "var/lib/urandom/random-seed"];
/// Files of a home that tell what was typed.
const HISTORIES: [&str; 8] = [
    ".bash_history",
    ".ash_history",
    ".sh_history",
    ".zsh_history",
    ".python_history",
    ".lesshst",
    ".viminfo",
    ".wget-hsts",
];

/// Removes identity, caches, logs, histories and temporary files. The name of the machine stays:
/// the agent replaces the one that it finds at the first boot.
///
/// # Errors
/// A path in the tree that cannot be written.
pub fn clean(tree: &mut Tree) -> Result<(), TreeError> {
    rootfs::anonymise(tree)?;
    for folder in EMPTIED {
        for name in names(tree, folder) {
            tree.remove([folder.as_bytes(), b"/", &name].concat());
        }
    }
    for (folder, end) in FILES {
        for name in names(tree, folder).iter().filter(|name| name.ends_with(end.as_bytes())) {
            tree.remove([folder.as_bytes(), b"/", name].concat());
        }
    }
    for path in REMOVED {
        tree.remove(path);
    }
    for name in names(tree, "var/lib/NetworkManager") {
        if String::from_utf8_lossy(&name).contains("lease") {
            tree.remove([&b"var/lib/NetworkManager/"[..], &name].concat());
        }
    }
    let users = names(tree, "home").into_iter().map(|name| [&b"home/"[..], &name].concat());
    for home in users.chain([b"root".to_vec()]).collect::<Vec<_>>() {
        for history in HISTORIES {
            tree.remove([&home, &b"/"[..], history.as_bytes()].concat());
        }
    }
    empty_logs(tree);
    Ok(())
}

/// Names in a folder, which may be a link; a folder that leads to the root counts as absent.
fn names(tree: &Tree, folder: &str) -> Vec<Vec<u8>> {
    let id = tree.resolve(folder).filter(|id| *id != ROOT);
    match id.map(|id| &tree.node(id).kind) {
        Some(Kind::Folder(names)) => names.keys().map(|name| name.to_vec()).collect(),
        _ => Vec::new(),
    }
}

/// Empties the files below /var/log, and removes rotated ones.
fn empty_logs(tree: &mut Tree) {
    let is_old = |name: &[u8]| {
        let rotated = matches!(name, [.., b'.', digit] if digit.is_ascii_digit());
        rotated || [&b".gz"[..], b".xz", b".old"].iter().any(|end| name.ends_with(end))
    };
    let mut folders: Vec<(NodeId, Vec<u8>)> = Vec::new();
    folders.extend(
        tree.resolve("var/log").filter(|id| *id != ROOT).map(|id| (id, b"var/log".to_vec())),
    );
    let mut removed = Vec::new();
    let mut emptied = Vec::new();
    while let Some((id, path)) = folders.pop() {
        let Kind::Folder(names) = &tree.node(id).kind else { continue };
        for (name, id) in names {
            let path = [&path, &b"/"[..], name].concat();
            match &tree.node(*id).kind {
                Kind::Folder(_) => folders.push((*id, path)),
                Kind::File(_) if is_old(name) => removed.push(path),
                Kind::File(_) => emptied.push(*id),
                _ => {}
            }
        }
    }
    for path in removed {
        tree.remove(path);
    }
    for id in emptied {
        tree.node_mut(id).kind = Kind::File(Content::Inline(Vec::new()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::Meta;

    #[test]
    fn only_what_belongs_to_the_machine_is_removed() {
        let mut tree = Tree::new();
        let kept = ["etc/hostname", "root/.bashrc", "home/me/work", "var/lib/dpkg/status", "srv/x"];
        let gone = [
            "etc/ssh/ssh_host_ed25519_key",
            "root/.bash_history",
            "home/me/.zsh_history",
            "var/tmp/junk",
            "tmp/.X11/x",
            "var/cache/apt/pkgcache.bin",
            "var/cache/apt/archives/a.deb",
            "var/lib/apt/lists/x_InRelease",
            "var/log/journal/0123/system.journal",
            "var/log/syslog.1",
            "var/log/apt/term.log.2.gz",
            "var/lib/dhcp/dhclient.eth0.leases",
            "var/lib/systemd/random-seed",
        ];
        for path in kept.iter().chain(&gone) {
            rootfs::put_file(&mut tree, path, "text", 0o640).unwrap();
        }
        for path in ["var/log/dpkg.log", "etc/machine-id"] {
            rootfs::put_file(&mut tree, path, "text", 0o640).unwrap();
        }
        clean(&mut tree).unwrap();
        for path in kept {
            assert_eq!(text(&tree, path), "text", "{path}");
        }
        for path in gone {
            assert!(tree.get(path).is_none(), "{path}");
        }
        for path in ["var/log/dpkg.log", "etc/machine-id"] {
            assert_eq!(text(&tree, path), "", "{path}");
        }
        assert_eq!(tree.node(tree.get("var/log/dpkg.log").unwrap()).meta.mode, 0o640);
        for folder in ["tmp", "var/tmp", "var/log/apt", "var/cache/apt/archives"] {
            assert!(tree.get(folder).is_some(), "{folder}");
        }
    }

    fn text(tree: &Tree, path: &str) -> String {
        match &tree.node(tree.get(path).unwrap()).kind {
            Kind::File(Content::Inline(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_link_to_the_root_removes_nothing() {
        let mut tree = Tree::new();
        rootfs::put_file(&mut tree, "srv/x", "text", 0o644).unwrap();
        for name in ["tmp", "run"] {
            tree.put(name, Kind::Symlink("/".into()), Meta::of_root(0o777)).unwrap();
        }
        tree.put("var/log", Kind::Symlink("..".into()), Meta::of_root(0o777)).unwrap();
        clean(&mut tree).unwrap();
        assert_eq!(text(&tree, "srv/x"), "text");
    }
}
