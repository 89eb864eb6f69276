//! The lock that serialises changes of the shared network: bridge, leases, rules.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_base::HostHint;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Kind, RootError};

/// Timeout. A change takes milliseconds, but many may queue on a slow host.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// A held lock (flock(2)), released when the last process that has it open ends. The programs that
/// make a change inherit it, so the next holder waits for a program that outlives this process.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock in the folder, and creates the folder if necessary.
    ///
    /// # Errors
    /// mkdir(2), open(2), flock(2); `Busy` after two minutes.
    pub fn take(folder: &Path) -> Result<Self, RootError> {
        let path = folder.join("net.lock");
        let failed = |error: &io::Error| RootError::on_path("lock", &path, error);
        fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
            .open(&path)
            .map_err(|error| failed(&error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::WOULDBLOCK) => {
                    let message = "another change of the network is still in progress";
                    return Err(RootError::new(Kind::Busy, message)
                        .with_hint(HostHint::FindHolder { path: path.display().to_string() }));
                }
                Err(error) => return Err(failed(&error.into())),
            }
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
