//! A child from before its start to its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use banger_shim::{Outcome, ProcRef};
use banger_sys::proc;
use banger_sys::spawn::Spawned;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, pidfd_send_signal, waitid};

/// What there is of a child.
pub enum Life {
    /// Nothing yet.
    NotStarted,
    /// It runs, or has ended and was not looked at yet.
    Running(Spawned),
    /// The same, of a child that somebody else started and left behind.
    Adopted(Adopted),
    /// It was reaped.
    Ended(Outcome),
}

/// A child that its own parent left to the shim, its subreaper.
pub struct Adopted {
    pidfd: OwnedFd,
    process: ProcRef,
}

impl Adopted {
    /// The child with this process id.
    pub fn find(pid: u32) -> io::Result<Self> {
        let gone = || io::Error::other(format!("process {pid} is gone"));
        let process = proc::reference(pid).ok_or_else(gone)?;
        let pidfd = proc::open(process)?.ok_or_else(gone)?;
        // The number comes from a file, and only a child's cannot become another process's.
        let parent = proc::parent(pid).and_then(|parent| Pid::from_raw(parent.cast_signed()));
        if parent != Some(getpid()) {
            return Err(io::Error::other(format!("process {pid} is no child of the shim")));
        }
        Ok(Self { pidfd, process })
    }

    /// Waits for its end: waitid(2).
    fn reap(&self) -> Outcome {
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Outcome::Exited { code },
                (None, signal) => Outcome::Signaled { signal: signal.unwrap_or_default() },
            },
            // Somebody else reaped it, which nobody here does; it is gone in any case.
            Ok(None) | Err(_) => Outcome::Exited { code: -1 },
        }
    }
}

impl Life {
    /// Becomes readable when it ends; nothing if that has been seen.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Running(spawned) => Some(spawned.pidfd.as_fd()),
            Self::Adopted(adopted) => Some(adopted.pidfd.as_fd()),
            Self::NotStarted | Self::Ended(_) => None,
        }
    }

    /// Who it is, while it runs.
    pub fn proc(&self) -> Option<ProcRef> {
        match self {
            Self::Running(spawned) => Some(spawned.process),
            Self::Adopted(adopted) => Some(adopted.process),
            Self::NotStarted | Self::Ended(_) => None,
        }
    }

    /// How it ended, if it has been started and reaped.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(*outcome),
            Self::NotStarted | Self::Running(_) | Self::Adopted(_) => None,
        }
    }

    /// Kills it, if it runs.
    pub fn kill(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        match self {
            Self::Running(spawned) => drop(spawned.child.kill()),
            Self::Adopted(adopted) => drop(pidfd_send_signal(&adopted.pidfd, Signal::KILL)),
            Self::NotStarted | Self::Ended(_) => {}
        }
    }

    /// Waits for its end, if it runs.
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
        // Somebody else reaped it, which nobody here does; it is gone in any case.
        Err(_) => Outcome::Exited { code: -1 },
    }
}
