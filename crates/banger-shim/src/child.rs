//! A child process, from before its start until it is reaped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use banger_shim::{Outcome, ProcRef};
use banger_sys::proc;
use banger_sys::spawn::Spawned;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, pidfd_send_signal, waitid};

/// State of a child.
pub enum ChildState {
    /// Not started.
    NotStarted,
    /// Started and not reaped.
    Running(Spawned),
    /// Started by another process, adopted, and not reaped.
    Adopted(Adopted),
    /// Reaped.
    Ended(Outcome),
}

/// A process that became a child of the shim, its subreaper.
pub struct Adopted {
    pidfd: OwnedFd,
    process: ProcRef,
}

impl Adopted {
    /// Adopts the child with this process id.
    ///
    /// # Errors
    /// The process has ended or is not a child of this process; pidfd_open(2).
    pub fn find(pid: u32) -> io::Result<Self> {
        let gone = || io::Error::other(format!("process {pid} is gone"));
        let process = proc::reference(pid).ok_or_else(gone)?;
        let pidfd = proc::open(process)?.ok_or_else(gone)?;
        // The id comes from a file of the jail; only a child's id is known not to be reused.
        let parent = proc::parent(pid).and_then(|parent| Pid::from_raw(parent.cast_signed()));
        if parent != Some(getpid()) {
            return Err(io::Error::other(format!("process {pid} is not a child of the shim")));
        }
        Ok(Self { pidfd, process })
    }

    /// Waits for the end: waitid(2).
    fn reap(&self) -> Outcome {
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Outcome::Exited { code },
                (None, signal) => Outcome::Signaled { signal: signal.unwrap_or_default() },
            },
            // Nothing else reaps it; in any case it is gone.
            Ok(None) | Err(_) => Outcome::Exited { code: -1 },
        }
    }
}

impl ChildState {
    /// Becomes readable when the child ends; `None` if it was reaped or not started.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Running(spawned) => Some(spawned.pidfd.as_fd()),
            Self::Adopted(adopted) => Some(adopted.pidfd.as_fd()),
            Self::NotStarted | Self::Ended(_) => None,
        }
    }

    /// The process, while it is not reaped.
    pub fn proc(&self) -> Option<ProcRef> {
        match self {
            Self::Running(spawned) => Some(spawned.process),
            Self::Adopted(adopted) => Some(adopted.process),
            Self::NotStarted | Self::Ended(_) => None,
        }
    }

    /// How the child ended, once it was reaped.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(*outcome),
            Self::NotStarted | Self::Running(_) | Self::Adopted(_) => None,
        }
    }

    /// Kills the child if it is running.
    pub fn kill(&mut self) {
        // Fails if it has ended already.
        match self {
            Self::Running(spawned) => drop(spawned.child.kill()),
            Self::Adopted(adopted) => drop(pidfd_send_signal(&adopted.pidfd, Signal::KILL)),
            Self::NotStarted | Self::Ended(_) => {}
        }
    }

    /// Waits for the end, if the child is running.
    pub fn reap(&mut self) {
        match self {
            Self::Running(spawned) => *self = Self::Ended(wait(&mut spawned.child)),
            Self::Adopted(adopted) => *self = Self::Ended(adopted.reap()),
            Self::NotStarted | Self::Ended(_) => {}
        }
    }
}

fn wait(child: &mut Child) -> Outcome {
    match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Exited { code },
            (None, signal) => Outcome::Signaled { signal: signal.unwrap_or_default() },
        },
        // Nothing else reaps it; in any case it is gone.
        Err(_) => Outcome::Exited { code: -1 },
    }
}
