//! A small file system in memory, whose free space a test chooses.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; it is unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of this size at the new folder `path`; `None`, with a loud reason, without root.
    pub fn mount(path: &Path, mib: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only the superuser can mount a small disk");
            return None;
        }
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={mib}m,mode=700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path));
        Some(Self { path: path.to_owned() })
    }

    /// Changes its size so that this many bytes are free.
    pub fn leave(&self, free_bytes: u64) {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        let options = format!("remount,size={}", (used + free_bytes).max(stat.f_frsize));
        run(Command::new("mount").args(["-o", &options]).arg(&self.path));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}");
}
