//! Control groups of the agent and of its sessions.
//!
//! ```text
//! /sys/fs/cgroup/banger/agent          agent and supervisor
//! /sys/fs/cgroup/banger/sessions/P-N   session N of the agent with process id P
//! ```
//!
//! They lie outside of what the image's init manages. In systemd's `init.scope`, where processes
//! from before the init end up, one process killed for want of memory ends all others: systemd
//! stops a scope on an OOM kill (`OOMPolicy=` in systemd.scope(5)). No controller is enabled in
//! them, so inits that use cgroup v1 for some controllers keep those.
//!
//! The folders are used by descriptor: an init may mount something else over `/sys/fs/cgroup`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::fault::{Context, Fault};

/// Where cgroup v2 is mounted when the init is executed.
const MOUNTED: &str = "/sys/fs/cgroup";

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Names tried for a session's group.
const NAME_TRIES: u32 = 16;

/// Groups of ended sessions whose processes live on; more are left to the guest.
const MAX_LEFT: usize = 1024;

/// The folders that boot makes.
pub struct Groups {
    agent: OwnedFd,
    sessions: OwnedFd,
}

impl Groups {
    /// Makes both folders.
    ///
    /// # Errors
    /// No cgroup v2 is mounted, or mkdirat(2).
    pub fn make() -> Result<Self, Fault> {
        let what = || "cannot make control groups for agent and sessions".to_owned();
        let root = open(CWD, MOUNTED).context(what)?;
        let found = fs::fstatfs(&root).context(what)?;
        if found.f_type != CGROUP2_MAGIC {
            let text = format!(
                "`{MOUNTED}` is no cgroup v2: agent and sessions share the init's control group"
            );
            return Err(Fault::new(text));
        }
        let banger = make(&root, "banger").context(what)?;
        let agent = make(&banger, "agent").context(what)?;
        let sessions = make(&banger, "sessions").context(what)?;
        Ok(Self { agent, sessions })
    }

    /// Moves a process into the agent's group.
    ///
    /// # Errors
    /// As write(2) to `cgroup.procs`.
    pub fn adopt(&self, pid: Pid) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        fs::openat(&self.agent, "cgroup.procs", flags, Mode::empty())
            .and_then(|file| rustix::io::write(file, pid.as_raw_pid().to_string().as_bytes()))
            .map(drop)
            .context(|| "cannot move the agent into its control group".to_owned())
    }
}

fn open(folder: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(folder, path, flags, Mode::empty())
}

fn make(folder: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open(&folder, name),
        Err(errno) => Err(errno),
    }
}

/// Makes a group for each session.
pub struct Sessions {
    folder: Option<OwnedFd>,
    next: AtomicU64,
    /// An empty group with its name, made after a session ends, so that the next command does not
    /// wait for it.
    spare: Mutex<Option<(OwnedFd, String)>>,
    /// Groups that could not be removed yet.
    left: Mutex<Vec<String>>,
}

impl Sessions {
    /// Sessions beneath the folder that boot made; without one they have no groups of their own.
    pub fn new(groups: Option<Groups>) -> Arc<Self> {
        let folder = groups.map(|groups| groups.sessions);
        Arc::new(Self::beneath(folder))
    }

    fn beneath(folder: Option<OwnedFd>) -> Self {
        let (spare, left) = (Mutex::default(), Mutex::default());
        Self { folder, next: AtomicU64::new(0), spare, left }
    }

    fn spare(&self) -> MutexGuard<'_, Option<(OwnedFd, String)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Vec<String>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new, empty group; none where there are no groups, or no more can be made.
    pub fn group(self: &Arc<Self>) -> Option<Group> {
        let spare = self.spare().take();
        let (opened, name) = spare.or_else(|| self.make())?;
        Some(Group { opened, name, sessions: Arc::clone(self) })
    }

    fn make(&self) -> Option<(OwnedFd, String)> {
        let folder = self.folder.as_ref()?;
        for _ in 0..NAME_TRIES {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            match fs::mkdirat(folder, name.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => {}
                // Of an agent with the same process id, whose session lives on.
                Err(Errno::EXIST) => continue,
                Err(_) => return None,
            }
            let Ok(opened) = open(folder, &name) else {
                self.remove(&name);
                return None;
            };
            return Some((opened, name));
        }
        None
    }

    /// Removes a group; false while it has processes.
    fn remove(&self, name: &str) -> bool {
        let Some(folder) = &self.folder else { return true };
        fs::unlinkat(folder, name, AtFlags::REMOVEDIR) != Err(Errno::BUSY)
    }
}

/// The group of one session. When it is dropped the folder is removed, at the latest when a later
/// session ends after its last process; another one is made for the next session.
pub struct Group {
    opened: OwnedFd,
    name: String,
    sessions: Arc<Sessions>,
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut left = self.sessions.left();
        left.retain(|name| !self.sessions.remove(name));
        if !self.sessions.remove(&self.name) && left.len() < MAX_LEFT {
            left.push(std::mem::take(&mut self.name));
        }
        drop(left);
        let mut spare = self.sessions.spare();
        if spare.is_none() {
            *spare = self.sessions.make();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(folder: &std::path::Path) -> Arc<Sessions> {
        let folder = open(CWD, folder.to_str().unwrap()).unwrap();
        Arc::new(Sessions::beneath(Some(folder)))
    }

    #[test]
    fn each_session_has_a_group_that_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(folder.path());
        let (one, two) = (sessions.group().unwrap(), sessions.group().unwrap());
        assert_ne!(one.name, two.name);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let names = [one.name.clone(), two.name.clone()];
        drop((one, two));
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        let left: Vec<_> = left.into_iter().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "the next session's: {left:?}");
        assert!(!names.iter().any(|name| left[0] == name.as_str()));
        let next = sessions.group().unwrap();
        assert_eq!(left[0], next.name.as_str());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let taken = format!("{}-0", std::process::id());
        std::fs::create_dir(folder.path().join(&taken)).unwrap();
        let group = sessions(folder.path()).group().unwrap();
        assert_ne!(group.name, taken);
    }

    #[test]
    fn without_groups_there_are_sessions_all_the_same() {
        assert!(Sessions::new(None).group().is_none());
    }
}
