//! Watches of folders by inotify(7). Each folder is watched by its descriptor, so that no symlink
//! leads the watch elsewhere. Changes are collected and reported together.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::Reply;

/// Most bytes of paths in one notice.
const MAX_NOTICE: usize = 64 * 1024;

/// Most changes that are collected by folder.
const MAX_DIRTY: usize = 20_000;

/// The watches of a side.
pub struct Watch {
    fd: OwnedFd,
    /// Watches with the paths of their folders, by number; numbers grow.
    paths: Vec<(i32, Vec<u8>)>,
    /// Changed folders; a path may be there more than once.
    dirty: Vec<Vec<u8>>,
    lost: bool,
    root_gone: bool,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd, paths: Vec::new(), dirty: Vec::new(), lost: false, root_gone: false })
    }

    /// Watches a folder, whose path may have changed since; returns whether it is watched: the
    /// number of watches of a user is limited.
    pub fn add(&mut self, path: &[u8], folder: &OwnedFd) -> bool {
        let mut wanted = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        if path.is_empty() {
            wanted |= WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        }
        let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let Ok(watch) = inotify::add_watch(&self.fd, link, wanted) else { return false };
        match self.place(watch) {
            Ok(at) => {
                if let Some((_, known)) = self.paths.get_mut(at) {
                    *known = path.to_vec();
                }
            }
            Err(at) => self.paths.insert(at, (watch, path.to_vec())),
        }
        true
    }

    fn place(&self, watch: i32) -> Result<usize, usize> {
        self.paths.binary_search_by_key(&watch, |(number, _)| *number)
    }

    /// Collects what the kernel has to report; returns whether anything is to be reported.
    pub fn collect(&mut self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(self.has_news()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.lost = true;
                continue;
            }
            let Ok(at) = self.paths.binary_search_by_key(&event.wd(), |(number, _)| *number) else {
                continue;
            };
            if what.contains(ReadFlags::IGNORED) {
                self.paths.remove(at);
                continue;
            }
            let Some((_, path)) = self.paths.get(at) else { continue };
            if what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                self.root_gone |= path.is_empty();
                continue;
            }
            let name = event.file_name().map(|name| name.to_bytes()).unwrap_or_default();
            if banger_archive::is_temporary(name) || self.dirty.last() == Some(path) {
                continue;
            }
            if self.dirty.len() < MAX_DIRTY {
                self.dirty.push(path.clone());
            } else {
                self.lost = true;
            }
        }
    }

    fn has_news(&self) -> bool {
        self.lost || self.root_gone || !self.dirty.is_empty()
    }

    /// The collected changes as notices.
    pub fn take(&mut self) -> Vec<Reply> {
        let mut notices = Vec::new();
        if std::mem::take(&mut self.root_gone) {
            notices.push(Reply::RootGone);
        }
        if std::mem::take(&mut self.lost) {
            self.dirty.clear();
            notices.push(Reply::Lost);
        }
        self.dirty.sort_unstable();
        self.dirty.dedup();
        let (mut paths, mut bytes) = (Vec::new(), 0);
        for path in std::mem::take(&mut self.dirty) {
            bytes += path.len() + 4;
            paths.push(path);
            if bytes > MAX_NOTICE {
                notices.push(Reply::Dirty(std::mem::take(&mut paths)));
                bytes = 0;
            }
        }
        if !paths.is_empty() {
            notices.push(Reply::Dirty(paths));
        }
        notices
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
