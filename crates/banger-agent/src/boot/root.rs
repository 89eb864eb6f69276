//! Putting the new root together under `/newroot` of the initramfs.
//!
//! ```text
//! plain disk        disk ────────────────► /newroot
//! image + layer     disk (ro) ► /image ┐
//!                   layer ────► /layer ┴─► overlay /newroot
//!                               /layer/plain/docker ► /newroot/var/lib/docker, and so on
//! ```
//!
//! Container engines keep overlays of their own, and an overlay cannot be the upper layer of an
//! overlay: so their folders lie on the layer's plain ext4. They are filled from the image's own
//! disk, since an overlay hides what overlays of the engines consist of (whiteouts, attributes).

use std::fmt::Write as _;
use std::io;

use banger_agent_proto::boot::{DiskRef, GuestConfig};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};

use super::disks::{self, Disk};
use super::early::make_folder;
use super::log::BootLog;
use super::{grow, nested, seed};
use crate::beneath::{Folder, Links, Owner};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;

/// Where the new root grows; folders of the initramfs.
pub const NEW_ROOT: &str = "/newroot";
const IMAGE: &str = "/image";
const LAYER: &str = "/layer";
const WORK: &str = "/work";
const MODULE_DISK: &str = "/module-disk";
const MOUNTING: &str = "/mounting";

/// Folders of container engines, by name under `/var/lib`.
const ENGINES: [&str; 4] = ["docker", "containerd", "containers", "rancher"];

/// Most modules disks' top folders looked at to find the kernel release.
const RELEASE_LENGTH_MAX: usize = 64;

/// The new root, and the file system on which its private data lies.
pub struct Root {
    /// `/` of the machine to be.
    pub folder: Folder,
    /// Root folder of the ext4 that is written to when the guest writes: the layer's, or the
    /// plain disk's. Kept open because the layer has no name after the root has moved.
    pub private: Folder,
    /// Whether it is an overlay of image and private layer.
    pub layered: bool,
}

/// A file system of the kernel that every init expects to find.
struct KernelMount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static std::ffi::CStr,
}

/// What is mounted within the initramfs' own /dev and /sys, which move into the new root as they
/// are once nothing here needs them any more.
fn kernel_mounts() -> [KernelMount; 3] {
    let nosuid = MountFlags::NOSUID;
    [
        KernelMount {
            kind: "devpts",
            target: "/dev/pts",
            flags: nosuid | MountFlags::NOEXEC,
            data: c"gid=5,mode=620,ptmxmode=666",
        },
        KernelMount {
            kind: "tmpfs",
            target: "/dev/shm",
            flags: nosuid | MountFlags::NODEV,
            data: c"mode=1777",
        },
        KernelMount {
            kind: "cgroup2",
            target: "/sys/fs/cgroup",
            flags: nosuid | MountFlags::NODEV | MountFlags::NOEXEC,
            data: c"nsdelegate,memory_recursiveprot",
        },
    ]
}

/// What systemd and other inits mount with a program for each, which costs more than all the rest
/// of such a mount. Kernels that were built without one are no fault.
fn optional_mounts() -> [KernelMount; 4] {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mount = |kind, target, flags| KernelMount { kind, target, flags, data: c"" };
    [
        mount("mqueue", "/dev/mqueue", flags | MountFlags::NOEXEC),
        mount("hugetlbfs", "/dev/hugepages", flags),
        mount("debugfs", "/sys/kernel/debug", flags | MountFlags::NOEXEC),
        mount("tracefs", "/sys/kernel/tracing", flags | MountFlags::NOEXEC),
    ]
}

/// Builds the whole tree.
///
/// # Errors
/// Only what a machine cannot do without: its root and the kernel's file systems. The rest is
/// noted in `log`.
pub fn assemble(config: &GuestConfig, log: &mut BootLog) -> Result<Root, Fault> {
    let image = disks::find(&config.root.disk)?;
    make_folder(NEW_ROOT)?;
    let private = match &config.root.layer {
        None => {
            mount_grown(&image, NEW_ROOT, log)?;
            open_readable(NEW_ROOT)?
        }
        Some(layer) => join_layer(&image, &disks::find(layer)?, log)?,
    };
    let folder = open(NEW_ROOT)?;
    mount_kernel_file_systems(log);
    let run = mount_run(&folder, log);
    log.note(run);
    let below = match config.root.layer {
        Some(_) => Some(open(IMAGE)?),
        None => None,
    };
    for engine in ENGINES {
        log.note(match &below {
            Some(image) => bind_engine(&folder, &private, image, engine),
            None => bind_itself(&folder, engine),
        });
    }
    if let Some(disk) = &config.modules {
        log.note(mount_modules(&folder, disk));
    }
    if let Some(disk) = &config.work {
        mount_work(&folder, disk, log)?;
    }
    // Programs of a first command keep their files there, and not every image has it.
    if folder.folder(b"tmp", Links::Inside).is_err() {
        log.note(folder.make_inside(b"tmp", Owner::ROOT, 0o1777));
    }
    Ok(Root { folder, private, layered: config.root.layer.is_some() })
}

fn mount_ext4(disk: &Disk, target: &str, flags: MountFlags) -> Result<(), Fault> {
    make_folder(target)?;
    mount(disk.path(), target, "ext4", flags, None).context(|| {
        let mut what = format!("cannot mount `{}` as ext4", disk.path());
        if flags.contains(MountFlags::RDONLY) {
            // Not `noload`: that would mount a dirty image silently.
            let _ = write!(what, " read-only (was the image closed cleanly?)");
        }
        what
    })
}

/// Mounts a writable ext4 and makes it as large as its disk.
fn mount_grown(disk: &Disk, target: &str, log: &mut BootLog) -> Result<(), Fault> {
    let blocks = grow::wanted_blocks(disk);
    mount_ext4(disk, target, MountFlags::empty())?;
    if let Some(blocks) = blocks {
        log.note(open_readable(target).and_then(|root| grow::grow(root, blocks, disk)));
    }
    Ok(())
}

/// Opens a folder.
fn open(path: &str) -> Result<Folder, Fault> {
    Folder::open(path).context(|| format!("cannot open `{path}`"))
}

/// Joins the read-only image and the private layer at [`NEW_ROOT`]; returns the layer's ext4.
fn join_layer(image: &Disk, layer: &Disk, log: &mut BootLog) -> Result<Folder, Fault> {
    mount_ext4(image, IMAGE, MountFlags::RDONLY)?;
    mount_grown(layer, LAYER, log)?;
    let private = open_readable(LAYER)?;
    for name in ["upper", "work"] {
        let made = private.make_folders(name.as_bytes(), Owner::ROOT, 0o755);
        made.context(|| format!("cannot make `{LAYER}/{name}`"))?;
    }
    mount_overlay(log)?;
    Ok(private)
}

/// Mounts the overlay itself.
///
/// `redirect_dir`: renaming a folder of the image must work as on any disk (dpkg does it). `index`:
/// the names of a hard-linked file stay one file when it is written to (the kernel's
/// Documentation/filesystems/overlayfs.rst); without it, they come apart.
fn mount_overlay(log: &mut BootLog) -> Result<(), Fault> {
    let join = |data| mount("overlay", NEW_ROOT, "overlay", MountFlags::empty(), data);
    let with_index =
        c"lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work,redirect_dir=on,index=on";
    if let Err(errno) = join(with_index) {
        log.warn(format!(
            "hard links of the image come apart when written to: no overlay with index ({errno})"
        ));
        let plain = c"lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work,redirect_dir=on";
        return join(plain)
            .context(|| "cannot join image and private layer with overlayfs".to_owned());
    }
    // The kernel falls back by itself where a disk has no UUID or no file handles.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.contains(NEW_ROOT) && line.contains("index=on")) {
        log.warn("hard links of the image come apart when written to: the kernel has no index");
    }
    Ok(())
}

/// The kernel's file systems that are not there yet. A kernel without cgroups or pseudo terminals
/// still makes a machine.
fn mount_kernel_file_systems(log: &mut BootLog) {
    for step in kernel_mounts() {
        // sysfs makes its own folders, devtmpfs leaves them to us.
        let folder = if step.kind == "cgroup2" { Ok(()) } else { make_folder(step.target) };
        log.note(folder.and_then(|()| {
            mount(step.kind, step.target, step.kind, step.flags, step.data)
                .context(|| format!("cannot mount `{}`", step.target))
        }));
    }
    for step in optional_mounts() {
        // sysfs has folders for those that the kernel knows, devtmpfs none.
        if !step.target.starts_with("/dev/") || make_folder(step.target).is_ok() {
            let _ = mount(step.kind, step.target, step.kind, step.flags, step.data);
        }
    }
    // What devtmpfs does not have and udev would make later.
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        // Some kernels' own set-up has made them.
        let _ = rustix::fs::symlink(target, link);
    }
}

/// /run of the new root: what the boot leaves there for the image's services must not be covered
/// by a tmpfs that comes later.
fn mount_run(root: &Folder, log: &mut BootLog) -> Result<(), Fault> {
    let what = || "cannot mount `/run`".to_owned();
    let target = mount_point(root, "run", 0o755, log)?;
    make_folder(MOUNTING)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", MOUNTING, "tmpfs", flags, c"mode=755,size=20%").context(what)?;
    // Mounted elsewhere first: only a handle, not a path, is safe as a target in the image.
    attach(MOUNTING, &target).context(what)
}

/// A folder at the top of the image to mount on; a link there is followed inside the image. What
/// leads nowhere (a loop) or is no folder is renamed and replaced, since a machine cannot do
/// without the mount.
fn mount_point(root: &Folder, name: &str, mode: u32, log: &mut BootLog) -> Result<Folder, Fault> {
    let fault = match root.make_inside(name.as_bytes(), Owner::ROOT, mode) {
        Ok(folder) => return Ok(folder),
        Err(fault) => fault,
    };
    let aside = format!("{name}.before-banger");
    rustix::fs::renameat(root, name, root, &aside)
        .context(|| format!("cannot rename `/{name}` to `/{aside}`: {}", fault.chain()))?;
    log.warn(format!("`/{name}` of the image was renamed to `/{aside}`: {}", fault.chain()));
    root.make_inside(name.as_bytes(), Owner::ROOT, mode)
}

/// Takes /proc, /sys and /dev into the new root; from now on they are not at their own place.
///
/// # Errors
/// A read-only image without them.
pub fn move_kernel_file_systems(root: &Folder, log: &mut BootLog) -> Result<(), Fault> {
    for name in ["sys", "dev", "proc"] {
        let target = mount_point(root, name, 0o755, log)?;
        attach(&format!("/{name}"), &target).context(|| format!("cannot move `/{name}`"))?;
    }
    Ok(())
}

/// Moves the mount at `source` (a path of the initramfs) onto the folder `target`.
fn attach(source: &str, target: &Folder) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(CWD, source, target, "", flags)?)
}

/// Makes the folder `source` visible at `target` as well.
fn bind(source: &Folder, target: &Folder) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(source, "", flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, "", target, "", flags)?)
}

/// Lays a folder of the layer's plain ext4 over `/var/lib/<engine>`. What `image`, the disk beneath
/// the overlay, has there is copied once.
fn bind_engine(root: &Folder, private: &Folder, image: &Folder, engine: &str) -> Result<(), Fault> {
    let what = || format!("cannot put `/var/lib/{engine}` on plain ext4");
    let path = format!("var/lib/{engine}");
    let target = root.make_inside(path.as_bytes(), Owner::ROOT, 0o711)?;
    let source = private
        .make_folders(format!("plain/{engine}").as_bytes(), Owner::ROOT, 0o711)
        .context(what)?;
    let original = image.folder(path.as_bytes(), Links::Inside).ok();
    let original = original.as_ref().unwrap_or(&target);
    seed::once(&source, &[original], seed::LIKE_THE_SOURCE).context(what)?;
    bind(&source, &target).context(what)
}

/// On a plain disk the folder of a container engine is a mount of its own as well, so that a
/// machine looks the same whatever its storage.
fn bind_itself(root: &Folder, engine: &str) -> Result<(), Fault> {
    let path = format!("var/lib/{engine}");
    let folder = root.make_inside(path.as_bytes(), Owner::ROOT, 0o711)?;
    bind(&folder, &folder).context(|| format!("cannot make `/{path}` a mount"))
}

/// Lays the modules disk's one top folder over `/lib/modules/<release>`.
fn mount_modules(root: &Folder, wanted: &DiskRef) -> Result<(), Fault> {
    let disk = disks::find(wanted)?;
    mount_ext4(&disk, MODULE_DISK, MountFlags::RDONLY)?;
    let outcome = place_modules(root);
    // The bind mount keeps the file system mounted.
    let _ = unmount(MODULE_DISK, UnmountFlags::DETACH);
    outcome
}

fn place_modules(root: &Folder) -> Result<(), Fault> {
    let what = || "cannot place the kernel's modules".to_owned();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if release.len() > RELEASE_LENGTH_MAX || release.contains('/') {
        return Err(Fault::new(format!("`{release}` is no kernel release")));
    }
    let source = open(MODULE_DISK)?
        .folder(release.as_bytes(), Links::Refuse)
        .context(|| format!("the modules disk has no modules for kernel `{release}`"))?;
    // `/lib` is a link to `usr/lib` almost everywhere now; an image with neither gets `/lib`.
    let path = format!("lib/modules/{release}");
    let target = root.make_inside(path.as_bytes(), Owner::ROOT, 0o755)?;
    bind(&source, &target).context(what)
}

/// Mounts the work disk at `/root`, filled from the image the first time.
fn mount_work(root: &Folder, wanted: &DiskRef, log: &mut BootLog) -> Result<(), Fault> {
    let disk = disks::find(wanted)?;
    mount_grown(&disk, WORK, log)?;
    let target = mount_point(root, "root", 0o700, log)?;
    let home = open_readable(WORK)?;
    match nested::lift(&home) {
        Ok(0) => {}
        Ok(count) => log.warn(format!("moved {count} files of `/root/root` to `/root`")),
        Err(error) => log.warn(format!("cannot move `/root/root` to `/root`: {error}")),
    }
    let skeleton = root.folder(b"etc/skel", Links::Inside).ok();
    let sources: Vec<&Folder> = std::iter::once(&target).chain(skeleton.as_ref()).collect();
    log.note(
        seed::once(&home, &sources, Some(Mode::RWXU))
            .context(|| "cannot fill the new `/root`".to_owned()),
    );
    // An empty folder only: e2fsck makes it again when it has to keep recovered files.
    let _ = rustix::fs::unlinkat(&home, "lost+found", AtFlags::REMOVEDIR);
    attach(WORK, &target).context(|| "cannot mount the work disk at `/root`".to_owned())
}

/// Opens a folder so that ioctls and statfs work on it, which a path handle refuses.
fn open_readable(path: &str) -> Result<Folder, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(Folder::from_fd)
        .context(|| format!("cannot open `{path}`"))
}

/// Empties the initramfs once the root has moved away from it: its memory is the guest's.
pub fn empty_initramfs(old: &Folder) {
    let list = |folder: &Folder| -> Vec<Vec<u8>> { seed::names(folder).unwrap_or_default() };
    let Ok(modules) = old.folder(b"modules", Links::Refuse) else { return };
    for name in list(&modules) {
        let _ = rustix::fs::unlinkat(&modules, name.as_slice(), AtFlags::empty());
    }
    // The program itself: its pages stay as long as it runs.
    let _ = rustix::fs::unlinkat(old, "init", AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_mounts_move_with_dev_and_sys() {
        for step in kernel_mounts() {
            let moves = ["/dev/", "/sys/"].iter().any(|folder| step.target.starts_with(folder));
            assert!(moves, "{} would stay behind", step.target);
            assert!(step.flags.contains(MountFlags::NOSUID), "{}", step.target);
        }
    }
}
