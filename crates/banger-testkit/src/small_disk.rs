//! A small file system in memory, whose free space a test chooses.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};

/// A mounted tmpfs; it is unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
    /// Free bytes to leave, and who waits for it.
    requests: Sender<(u64, Sender<()>)>,
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
        let (requests, received) = channel::<(u64, Sender<()>)>();
        let mounted = path.to_owned();
        // A thread of its own: one that reads an image is confined and can start no program.
        std::thread::spawn(move || {
            for (free_bytes, done) in received {
                resize(&mounted, free_bytes);
                done.send(()).unwrap();
            }
        });
        Some(Self { path: path.to_owned(), requests })
    }

    /// Changes its size so that this many bytes are free.
    pub fn leave(&self, free_bytes: u64) {
        let (done, resized) = channel();
        self.requests.send((free_bytes, done)).unwrap();
        resized.recv().unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

fn resize(path: &Path, free_bytes: u64) {
    let stat = rustix::fs::statvfs(path).unwrap();
    let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
    let options = format!("remount,size={}", (used + free_bytes).max(stat.f_frsize));
    run(Command::new("mount").args(["-o", &options]).arg(path));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}");
}
