//! Built-in recipes: Debian by mmdebstrap(1), with its default mirrors and keys.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::recipe_progress::{Meter, Step};
use super::rootfs::put_file;
use super::sandbox::{self, WorkFolder};
use super::{ImageError, debian_boot};
use crate::Privilege;
use crate::ext4::{Ext4Error, Kind, Meta, Tree};
use crate::fetch::{self, PathContext, Progress, Tools};

/// The name of the recipe, and of the image it makes.
pub const DEBIAN: &str = banger_api::images::DEFAULT_IMAGE;
/// Version of the recipe; increase it when the resulting image changes. In a file of its own,
/// because the tests' cache of images depends on it too.
const RECIPE: &str = include_str!("recipe.number").trim_ascii();
/// The release it installs.
const SUITE: &str = "bookworm";
/// Packages for development. Container engines need kmod to set up their network, and
/// `apparmor_parser` (apparmor) because Debian's kernel has AppArmor enabled.
const PACKAGES: [&str; 24] = [
    "apparmor",
    "ca-certificates",
    "curl",
    "dbus",
    "git",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "man-db",
    "manpages",
    "nano",
    "netbase",
    "openssh-client",
    "openssh-server",
    "procps",
    "python3",
    "rsync",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "vim",
    "xz-utils",
];
/// Paths excluded from all packages: translations and documents. English manual pages stay.
const EXCLUDED: [&str; 6] = [
    "path-exclude=/usr/share/man/*",
    "path-include=/usr/share/man/man[1-9]/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];
/// Temporary space of a run of mmdebstrap: packages, the tree, the archive.
const TEMPORARY_BYTES: u64 = 3 << 29;
/// Bytes that the archive and the root disk take together.
const STORED_BYTES: u64 = 5 << 28;

/// Description of the origin of an image of this recipe.
pub fn provenance() -> String {
    format!("mmdebstrap {SUITE} (recipe {RECIPE}): {}", PACKAGES.join(" "))
}

/// Whether an image with this provenance was made by a recipe, of this or an earlier version.
pub fn made(provenance: &str) -> bool {
    provenance.starts_with("mmdebstrap ")
}

/// Runs mmdebstrap and writes the root file system as an archive to `target`.
///
/// For an ordinary user mmdebstrap uses a user namespace, which needs newuidmap(1) and a range in
/// /etc/subuid.
///
/// # Errors
/// A missing requirement; errors of mmdebstrap; cancellation.
pub fn debian(target: &Path, tools: &Tools, progress: &dyn Progress) -> Result<(), ImageError> {
    progress.stage("prepare");
    let privilege = Privilege::ours();
    let mut tool = sandbox::mmdebstrap(privilege, tools, progress)?;
    let mode = match privilege {
        Privilege::Root => "--mode=root",
        Privilege::User => {
            check_user_namespace(tools)?;
            "--mode=unshare"
        }
    };
    let work = WorkFolder::new(target.parent().unwrap_or(target), privilege, tools)?;
    fetch::need_space(work.path(), TEMPORARY_BYTES)?;
    // Its archive and its disk may be on another file system.
    fetch::need_space(target.parent().unwrap_or(target), STORED_BYTES)?;
    tool.command.env("TMPDIR", work.path()).current_dir("/").arg(mode);
    // Includes the output of apt and dpkg, from which the progress is derived.
    tool.command.args(["--verbose", "--variant=minbase", "--format=tar"]);
    tool.command.arg(format!("--include={}", PACKAGES.join(",")));
    if let Some(path) = tools.apt_trust(work.path())? {
        tool.command.arg(format!("--aptopt={} \"{}\"", fetch::CA_INFO, path.display()));
    }
    for pattern in EXCLUDED {
        tool.command.arg(format!("--dpkgopt={pattern}"));
    }
    // To standard output: within a user namespace the target's folder may be out of reach.
    let tool = tool.args([SUITE, "-"]);
    let meter = Mutex::new(Meter::default());
    let on_line = |line: &str| {
        let step = meter.lock().unwrap_or_else(PoisonError::into_inner).line(line);
        match step {
            Some(Step::Stage(stage)) => progress.stage(&stage),
            Some(Step::Items(unit, done, total)) => progress.items(unit, done, Some(total)),
            None => {}
        }
    };
    let archive = fs::File::create_new(target).at("create", target)?;
    let mut running = tool.start_with(progress, Some(&on_line))?;
    std::io::copy(&mut running, &mut &archive).at("write", target)?;
    running.finish()?;
    Ok(())
}

/// Checks the requirements of `--mode=unshare`.
fn check_user_namespace(tools: &Tools) -> Result<(), ImageError> {
    tools.command("newuidmap", "uidmap")?;
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    let has = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| {
            let owner = line.split(':').next();
            owner == Some(uid.as_str()) || (user.is_some() && owner == user.as_deref())
        })
    };
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !has(file) {
            return Err(ImageError::NoSubordinateIds {
                file: file.into(),
                user: user.unwrap_or(uid),
            });
        }
    }
    Ok(())
}

/// The host key that each VM gets at boot, and no DNS look-ups that delay a login.
const SSHD: &str = "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n";

/// Enough inotify watches for file watchers on large source trees; the kernel's own default follows
/// the size of the memory and is a few thousand on a small VM.
const SYSCTL: &str = "fs.inotify.max_user_watches = 1048576\n\
    fs.inotify.max_user_instances = 1024\n\
    fs.inotify.max_queued_events = 65536\n";

/// Root's shell: colours, a prompt that names the VM, a history without repeats.
const BASHRC: &str = r#"# ~/.bashrc: read by bash(1) for interactive shells.
case $- in *i*) ;; *) return ;; esac
HISTCONTROL=ignoreboth
shopt -s histappend checkwinsize
PS1='\[\e[1;32m\]\u@\h\[\e[0m\]:\[\e[1;34m\]\w\[\e[0m\]\$ '
case $TERM in
dumb) PS1='\u@\h:\w\$ ' ;;
xterm* | rxvt* | screen* | tmux*) PS1="\[\e]0;\u@\h: \w\a\]$PS1" ;;
esac
if [ "$TERM" != dumb ]; then
    eval "$(dircolors -b)"
    alias ls='ls --color=auto' grep='grep --color=auto' diff='diff --color=auto'
    alias ip='ip -color=auto'
fi
alias ll='ls -l' la='ls -A'
"#;

/// Configures an installed Debian as a guest.
///
/// # Errors
/// The tree is not one of mmdebstrap.
pub fn amend(tree: &mut Tree) -> Result<(), Ext4Error> {
    // Packages installed later are not filtered.
    tree.remove("etc/dpkg/dpkg.cfg.d/99mmdebstrap");
    // Names the file with the certificates of `[ca]` during the installation.
    tree.remove("etc/apt/apt.conf.d/99mmdebstrap");
    // mmdebstrap copies these from the host.
    tree.remove("etc/resolv.conf");
    tree.remove("etc/hostname");
    // Without it, dpkg's trigger does not index all manual pages after every installation.
    tree.remove("var/lib/man-db/auto-update");
    debian_boot::shorten(tree)?;
    let target = Kind::Symlink("/lib/systemd/system/multi-user.target".into());
    tree.put("etc/systemd/system/default.target", target, Meta::of_root(0o777))?;
    put_file(tree, "etc/ssh/sshd_config.d/banger.conf", SSHD, 0o644)?;
    put_file(tree, "etc/default/locale", "LANG=C.UTF-8\n", 0o644)?;
    put_file(tree, "etc/sysctl.d/50-banger.conf", SYSCTL, 0o644)?;
    put_file(tree, "root/.bashrc", BASHRC, 0o644)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amended_tree_has_no_trace_of_the_host() {
        let mut tree = Tree::new();
        let apt = "etc/apt/apt.conf.d/99mmdebstrap";
        for path in ["etc/resolv.conf", "etc/hostname", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", apt] {
            put_file(&mut tree, path, "host", 0o644).unwrap();
        }
        amend(&mut tree).unwrap();
        assert!(tree.get("etc/resolv.conf").is_none() && tree.get("etc/hostname").is_none());
        assert!(tree.list("etc/dpkg/dpkg.cfg.d").is_empty() && tree.get(apt).is_none());
    }
}
