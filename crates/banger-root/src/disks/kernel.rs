//! The kernel interface of this module: real ioctls, or a fake in tests.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use banger_sys::{dm, loopdev};

/// Attributes of a backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Its length.
    pub bytes: u64,
    /// Access mode of the descriptor; `None` if it is not a regular file.
    pub access: Option<loopdev::Access>,
}

/// Every system call of this module, so that tests can make each of them fail.
pub trait Kernel {
    /// fstat(2) and fcntl(2).
    fn file(&self, file: BorrowedFd<'_>) -> io::Result<FileFacts>;
    /// [`loopdev::bound`].
    fn loops(&self) -> io::Result<Vec<u32>>;
    /// [`loopdev::status`].
    fn loop_status(&self, number: u32) -> io::Result<Option<loopdev::Status>>;
    /// [`loopdev::free`].
    fn loop_free(&self) -> io::Result<u32>;
    /// [`loopdev::configure`].
    fn loop_configure(
        &self,
        number: u32,
        file: BorrowedFd<'_>,
        tag: &str,
        access: loopdev::Access,
    ) -> io::Result<()>;
    /// [`loopdev::clear`].
    fn loop_clear(&self, number: u32) -> io::Result<()>;
    /// [`dm::check_target`].
    fn dm_check_target(&self, kind: &str) -> io::Result<()>;
    /// [`dm::list`].
    fn dm_names(&self) -> io::Result<Vec<String>>;
    /// [`dm::status`].
    fn dm_status(&self, name: &str) -> io::Result<Option<dm::Status>>;
    /// [`dm::table`].
    fn dm_table(&self, name: &str) -> io::Result<Vec<dm::Target>>;
    /// [`dm::states`].
    fn dm_states(&self, name: &str) -> io::Result<Vec<dm::Target>>;
    /// [`dm::create`].
    fn dm_create(&self, name: &str) -> io::Result<()>;
    /// [`dm::load`].
    fn dm_load(&self, name: &str, table: &[dm::Target], access: dm::Access) -> io::Result<()>;
    /// [`dm::resume`].
    fn dm_resume(&self, name: &str) -> io::Result<()>;
    /// [`dm::remove`].
    fn dm_remove(&self, name: &str) -> io::Result<()>;
    /// A monotonic clock.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The Linux kernel.
#[derive(Debug)]
pub struct Linux {
    since: Instant,
}

impl Default for Linux {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Kernel for Linux {
    fn file(&self, file: BorrowedFd<'_>) -> io::Result<FileFacts> {
        use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
        let stat = fstat(file)?;
        let mode = fcntl_getfl(file)? & OFlags::RWMODE;
        let access = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if mode == OFlags::RDWR => Some(loopdev::Access::ReadWrite),
            FileType::RegularFile if mode == OFlags::RDONLY => Some(loopdev::Access::Read),
            _ => None,
        };
        Ok(FileFacts {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            access,
        })
    }

    fn loops(&self) -> io::Result<Vec<u32>> {
        loopdev::bound()
    }

    fn loop_status(&self, number: u32) -> io::Result<Option<loopdev::Status>> {
        loopdev::status(number)
    }

    fn loop_free(&self) -> io::Result<u32> {
        loopdev::free()
    }

    fn loop_configure(
        &self,
        number: u32,
        file: BorrowedFd<'_>,
        tag: &str,
        access: loopdev::Access,
    ) -> io::Result<()> {
        loopdev::configure(number, file, tag, access)
    }

    fn loop_clear(&self, number: u32) -> io::Result<()> {
        loopdev::clear(number)
    }

    fn dm_check_target(&self, kind: &str) -> io::Result<()> {
        dm::check_target(kind)
    }

    fn dm_names(&self) -> io::Result<Vec<String>> {
        dm::list()
    }

    fn dm_status(&self, name: &str) -> io::Result<Option<dm::Status>> {
        dm::status(name)
    }

    fn dm_table(&self, name: &str) -> io::Result<Vec<dm::Target>> {
        dm::table(name)
    }

    fn dm_states(&self, name: &str) -> io::Result<Vec<dm::Target>> {
        dm::states(name)
    }

    fn dm_create(&self, name: &str) -> io::Result<()> {
        dm::create(name).map(|_| ())
    }

    fn dm_load(&self, name: &str, table: &[dm::Target], access: dm::Access) -> io::Result<()> {
        dm::load(name, table, access)
    }

    fn dm_resume(&self, name: &str) -> io::Result<()> {
        dm::resume(name)
    }

    fn dm_remove(&self, name: &str) -> io::Result<()> {
        dm::remove(name)
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
