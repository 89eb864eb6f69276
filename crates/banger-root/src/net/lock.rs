//! One at a time changes what all VMs share: the bridge, the leases, the rules.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Kind, RootError};

/// A change takes milliseconds; many may wait for theirs, on a host that is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// A held lock: flock(2), so it ends with the last process that has it open. The programs that are
/// run to change something inherit it: one that outlives us is waited for by the next.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock in the folder, which is made if it is not there.
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
                    let message = "another change of the network takes too long";
                    return Err(RootError::new(Kind::Busy, message)
                        .with_hint(format!("see who holds `{}`: fuser(1)", path.display())));
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
