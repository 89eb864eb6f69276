//! One holder at a time: flock(2) on a file that says who holds it.
//!
//! The kernel lets go when the holder ends, however it ends, so a lock is never stale.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// Longest text that is read from a lock file.
const MAX_TEXT: u64 = 32;

/// A held lock; let go when dropped. The file stays: removing it would let two hold it.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held open, which is what holds the lock")] File);

/// What an attempt came to.
#[derive(Debug)]
pub enum Taken {
    /// We hold it.
    Ours(Lock),
    /// Somebody else does.
    Held {
        /// Its process id, where the file says so.
        by: Option<u32>,
    },
}

/// Takes the lock at `path`, without waiting, and writes our process id into it. The file is made
/// with mode 0600 if it is not there.
///
/// # Errors
/// open(2) (links are not followed), flock(2), write(2).
pub fn take(path: &Path) -> io::Result<Taken> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Its holder may be about to write it: then nobody is named.
            let read = (&file).take(MAX_TEXT).read_to_string(&mut text);
            return Ok(Taken::Held { by: read.ok().and_then(|_| text.trim().parse().ok()) });
        }
        Err(error) => return Err(error.into()),
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Taken::Ours(Lock(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hears_who_is_first_and_the_third_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "4000000000 is long gone").unwrap();
        let Taken::Ours(first) = take(&path).unwrap() else { panic!("nobody holds it") };
        match take(&path).unwrap() {
            Taken::Held { by } => assert_eq!(by, Some(std::process::id())),
            Taken::Ours(_) => panic!("two hold it"),
        }
        drop(first);
        assert!(matches!(take(&path).unwrap(), Taken::Ours(_)));
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(take(&path).is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }
}
