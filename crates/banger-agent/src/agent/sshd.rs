//! `GET /sshd`: whether the guest has an ssh server, and its public host keys.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use banger_agent_proto::ssh::{MAX_HOST_KEY, MAX_HOST_KEYS, SshServer, public_key};

/// Programs of ssh servers, relative to the root folder.
const PROGRAMS: [&str; 6] = [
    "usr/sbin/sshd",
    "usr/bin/sshd",
    "usr/local/sbin/sshd",
    "run/current-system/sw/bin/sshd",
    "usr/sbin/dropbear",
    "usr/bin/dropbear",
];
/// Folder with the host keys, relative to the root folder.
const KEYS: &str = "etc/ssh";
/// Maximum number of entries of that folder that are looked at.
const MAX_ENTRIES: usize = 1000;

/// The ssh server of the system below `root`.
pub fn server(root: &Path) -> SshServer {
    let installed = PROGRAMS.iter().any(|program| root.join(program).is_file());
    let entries = fs::read_dir(root.join(KEYS)).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let is_key = |name: &str| name.starts_with("ssh_host_") && name.ends_with("_key.pub");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_key(name))
        .collect();
    names.sort();
    names.truncate(MAX_HOST_KEYS);
    let host_keys = names.iter().filter_map(|name| read(&root.join(KEYS).join(name))).collect();
    SshServer { installed, host_keys }
}

/// The key in a file of the guest, which may be of any kind and size.
fn read(path: &Path) -> Option<String> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(2 * MAX_HOST_KEY as u64).read_to_string(&mut text).ok()?;
    public_key(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_are_read_and_other_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(server(root.path()), SshServer::default());
        let folder = root.path().join(KEYS);
        fs::create_dir_all(&folder).unwrap();
        let (ed25519, rsa) = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "ssh-rsa AAAAB3NzaC1yc2EAAAAD");
        for (name, text) in [
            ("ssh_host_rsa_key.pub", format!("{rsa} root@x\n")),
            ("ssh_host_ed25519_key.pub", format!("{ed25519}\n")),
            ("ssh_host_ed25519_key", "private".into()),
            ("ssh_host_ed25519_key-cert.pub", format!("cert {rsa}")),
            ("ssh_host_dsa_key.pub", format!("{rsa}\n* {ed25519}\n")),
            ("ssh_host_huge_key.pub", format!("ssh-rsa {}", "A".repeat(1 << 20))),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::create_dir(folder.join("ssh_host_folder_key.pub")).unwrap();
        let fifo = folder.join("ssh_host_fifo_key.pub");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let found = server(root.path());
        assert_eq!(
            found,
            SshServer { installed: false, host_keys: vec![ed25519.to_owned(), rsa.to_owned()] }
        );
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        fs::write(root.path().join("usr/sbin/sshd"), "").unwrap();
        assert!(server(root.path()).installed);
    }
}
