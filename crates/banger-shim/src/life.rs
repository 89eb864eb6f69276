//! A child from before its start to its end.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use banger_shim::{Outcome, Proc};
use banger_sys::spawn::Spawned;

/// What there is of a child.
pub enum Life {
    /// Nothing yet.
    NotStarted,
    /// It runs, or has ended and was not looked at yet.
    Running(Spawned),
    /// It was reaped.
    Ended(Outcome),
}

impl Life {
    /// Becomes readable when it ends; nothing if that has been seen.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Running(spawned) => Some(spawned.pidfd.as_fd()),
            Self::NotStarted | Self::Ended(_) => None,
        }
    }

    /// Who it is, while it runs.
    pub fn proc(&self) -> Option<Proc> {
        match self {
            Self::Running(spawned) => Some(spawned.id.into()),
            Self::NotStarted | Self::Ended(_) => None,
        }
    }

    /// How it ended, if it has been started and reaped.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(*outcome),
            Self::NotStarted | Self::Running(_) => None,
        }
    }

    /// Kills it, if it runs.
    pub fn kill(&mut self) {
        if let Self::Running(spawned) = self {
            // One that has ended already cannot be killed, and need not be.
            let _ = spawned.child.kill();
        }
    }

    /// Waits for its end, if it runs.
    pub fn reap(&mut self) {
        if let Self::Running(spawned) = self {
            *self = Self::Ended(wait(&mut spawned.child));
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
