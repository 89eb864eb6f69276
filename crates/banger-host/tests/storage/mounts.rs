//! Small file systems of their own kind, mounted for a test.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use banger_root::disks::{Access, loop_attach, loop_detach};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Length of a file system: small, since it is filled, but what its kind asks for at least.
fn bytes(kind: &str) -> u64 {
    match kind {
        "ext4" => 128 << 20,
        _ => 320 << 20,
    }
}

/// A mounted file system; gone when dropped.
pub struct Mounted {
    tag: String,
    folder: tempfile::TempDir,
}

impl Mounted {
    /// One of this kind, made by `mkfs.KIND`; `None`, with a loud reason, where that cannot be.
    pub fn new(kind: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("SKIPPED: mounting {kind} needs root and loop devices");
            return None;
        }
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        File::create_new(&file).unwrap().set_len(bytes(kind)).unwrap();
        let mut make = Command::new(format!("mkfs.{kind}"));
        match make.env("PATH", path).arg("-q").arg(&file).output() {
            Err(error) => {
                eprintln!("SKIPPED: mkfs.{kind}: {error}");
                return None;
            }
            Ok(output) => assert!(output.status.success(), "{output:?}"),
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("banger-test-{}-{kind}-{count}", std::process::id());
        let opened = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        let (_, device) = loop_attach(&tag, opened.as_fd(), Access::ReadWrite).unwrap();
        let mounted = Self { tag, folder };
        fs::create_dir(mounted.path()).unwrap();
        let mode = MountFlags::NOSUID | MountFlags::NODEV;
        match mount(&device.path, mounted.path(), kind, mode, None) {
            Ok(()) => Some(mounted),
            Err(rustix::io::Errno::NODEV) => {
                eprintln!("SKIPPED: this kernel has no {kind}");
                None
            }
            Err(error) => panic!("cannot mount {kind}: {error}"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Takes all of its room with one file.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.path().join("filler");
        let mut file = File::create_new(&path).unwrap();
        let megabyte = vec![1; 1 << 20];
        for piece in [megabyte.as_slice(), &megabyte[..4096]] {
            // What is written may still shrink or grow on its way to the disk.
            while file.write_all(piece).is_ok() {
                while file.write_all(piece).is_ok() {}
                file.sync_data().unwrap();
            }
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.path().exists() {
            let _ = unmount(self.path(), UnmountFlags::empty());
        }
        let _ = loop_detach(&self.tag);
    }
}
