//! Waits for changes in a folder with inotify(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Reports that an entry of a folder was created, renamed into place, written or removed.
#[derive(Debug)]
pub struct FolderWatch {
    events: AsyncFd<OwnedFd>,
}

impl FolderWatch {
    /// Starts watching. Earlier changes are not reported: check the folder after this call.
    ///
    /// # Errors
    /// Those of inotify_init1(2) and inotify_add_watch(2).
    pub fn new(folder: &Path) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&events, folder, flags)?;
        Ok(Self { events: crate::sys::readable(events)? })
    }

    /// Waits for the next change; several changes may be reported as one.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            let drained = ready.try_io(|events| {
                let mut buffer = [MaybeUninit::uninit(); 4096];
                let mut reader = inotify::Reader::new(events.get_ref(), &mut buffer);
                reader.next()?;
                while reader.next().is_ok() {}
                Ok(())
            });
            if let Ok(result) = drained {
                return result;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let watch = FolderWatch::new(folder.path()).unwrap();
        std::fs::write(folder.path().join("a"), "b").unwrap();
        watch.changed().await.unwrap();
        assert!(FolderWatch::new(&folder.path().join("a")).is_err());
    }
}
