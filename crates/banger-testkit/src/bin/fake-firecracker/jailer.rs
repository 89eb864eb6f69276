//! The fake jailer, after Firecracker's docs/jailer.md: copies the program into the jail, creates
//! devices, sets owners, starts the VMM and writes its process id to a file.
//!
//! It creates no process namespace (`--new-pid-ns`): this VMM has no children.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::Args;

/// Folders of a jail that the VMM owns.
const FOLDERS: [&str; 3] = ["dev", "dev/net", "run"];
/// Device nodes of a jail: name, major and minor number.
const DEVICES: [(&str, u32, u32); 3] =
    [("dev/net/tun", 10, 200), ("dev/kvm", 10, 232), ("dev/urandom", 1, 9)];
/// Where cgroup2 is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| io::Error::other(format!("`{text}` is not a number")))
}

/// Creates the jail and starts a VMM in it.
pub fn run(args: &Args, behavior: &str) -> io::Result<()> {
    if behavior == "refuses" {
        return Err(io::Error::other("Failed to make the jail, as configured"));
    }
    let exec = Path::new(args.value("--exec-file")?);
    let (id, base) = (args.value("--id")?, Path::new(args.value("--chroot-base-dir")?));
    let (uid, gid) = (number(args.value("--uid")?)?, number(args.value("--gid")?)?);
    let name = exec.file_name().ok_or_else(|| io::Error::other("no file name"))?;
    let jail = base.join(name).join(id).join("root");
    let give = |path: &Path| {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        chown(path, Some(uid), Some(gid))
    };
    fs::create_dir_all(&jail)?;
    // A copy, not a link, as the real jailer makes it.
    let copy = jail.join(name);
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&copy)?;
    io::copy(&mut File::open(exec)?, &mut target)?;
    drop(target);
    chown(&copy, Some(uid), Some(gid))?;
    join_cgroup(args, id)?;
    for folder in FOLDERS {
        fs::create_dir_all(jail.join(folder))?;
        give(&jail.join(folder))?;
    }
    for (device, major, minor) in DEVICES {
        let path = jail.join(device);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor))?;
        chown(&path, Some(uid), Some(gid))?;
    }
    give(&jail)?;
    let child = Command::new(&copy)
        .args(["--id", id])
        .args(args.extra())
        .current_dir(&jail)
        .env_clear()
        .spawn()?;
    let file = jail.join(format!("{}.pid", name.display()));
    write!(OpenOptions::new().write(true).create_new(true).open(file)?, "{}", child.id())
}

/// Makes the VM's cgroup and joins it, so that the VMM starts there. Does nothing where
/// cgroup2 is not writable.
fn join_cgroup(args: &Args, id: &str) -> io::Result<()> {
    let Ok(parent) = args.value("--parent-cgroup") else { return Ok(()) };
    let root = Path::new(CGROUPS);
    if !root.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let (parent, cgroup) = (root.join(parent), root.join(parent).join(id));
    if fs::create_dir_all(&cgroup).is_err() {
        return Ok(());
    }
    for limit in args.all("--cgroup") {
        let (name, value) = limit.split_once('=').unwrap_or((limit, ""));
        let controller = format!("+{}", name.split('.').next().unwrap_or_default());
        // Without the controller there is no limit.
        for above in [root, parent.as_path()] {
            let _ = fs::write(above.join("cgroup.subtree_control"), &controller);
        }
        if cgroup.join(name).exists() {
            fs::write(cgroup.join(name), value)?;
        }
    }
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}
