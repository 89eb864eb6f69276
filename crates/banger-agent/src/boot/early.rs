//! The first steps of process 1: the kernel's own file systems, a console, modules.

use std::fs::{self, File};
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::log::BootLog;
use crate::fault::{Context, Fault};

/// Where the initramfs keeps the modules, and the file that lists them.
const MODULES: &str = "/modules";
const ORDER: &str = "/modules/order";

/// Mounts /proc, /sys and /dev of the initramfs; they move into the new root later.
pub fn mount_kernel_file_systems() -> Result<(), Fault> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let flags = match kind {
            "devtmpfs" => MountFlags::NOSUID,
            _ => MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        };
        make_folder(target)?;
        match mount(kind, target, kind, flags, None) {
            // The kernel may have done it.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(errno) => Err(errno).context(|| format!("cannot mount `{target}`"))?,
        }
    }
    Ok(())
}

/// Makes a folder of the initramfs, if it is not there.
pub fn make_folder(path: &str) -> Result<(), Fault> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).context(|| format!("cannot make `{path}`"))
        }
        _ => Ok(()),
    }
}

/// Gives process 1 its console: an initramfs without device nodes starts with no descriptors.
pub fn open_console() {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    // A guest without a console boots all the same.
    if let Ok(console) = rustix::fs::open("/dev/console", flags, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}

/// Loads the modules that the initramfs lists, in that order; one already in the kernel is fine.
///
/// A module that does not load may be one this kernel has no device for, so it is only noted:
/// what needed it says so itself.
pub fn load_modules(log: &mut BootLog) -> Result<(), Fault> {
    let order = match fs::read_to_string(ORDER) {
        Ok(order) => order,
        // A kernel with everything built in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error).context(|| format!("cannot read `{ORDER}`"))?,
    };
    for name in listed(&order) {
        let path = format!("{MODULES}/{name}");
        let loaded =
            File::open(&path).and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
        match loaded {
            Err(error) if error.raw_os_error() != Some(Errno::EXIST.raw_os_error()) => {
                let warning = format!("cannot load module `{path}`: {error}");
                eprintln!("banger: {warning}");
                log.warn(warning);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The file names in the order file; a line that is a path or a comment is skipped.
fn listed(order: &str) -> impl Iterator<Item = &str> {
    order
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_lists_file_names_only() {
        let order = "virtio.ko\n\n# net\n ../x.ko\nvsock.ko \n";
        assert_eq!(listed(order).collect::<Vec<_>>(), ["virtio.ko", "vsock.ko"]);
    }
}
