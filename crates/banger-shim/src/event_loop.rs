//! One iteration of the shim's event loop: waits, copies output, and returns events that need a
//! decision.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use banger_shim::{GuestEnd, ProcRef};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::adopted;
use crate::output::Output;
use crate::qmp::Qmp;
use crate::shim::Shim;

/// An event that needs a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The VMM has ended and was reaped.
    VmmEnded,
    /// The companion has ended and was reaped.
    CompanionEnded,
    /// The guest powered off, and its VMM does not exit by itself.
    PoweredOff,
    /// SIGTERM.
    Terminate,
    /// The watched folder changed.
    FolderChanged,
    /// The deadline passed.
    TimedOut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Vmm,
    Companion,
    Signals,
    Console,
    Log,
    Metrics,
    Qmp,
    Folder,
}

impl Shim {
    /// The next event; `folder` is an inotify(7) descriptor. Of simultaneous events, the end of the
    /// VMM comes first, then that of the companion, then signals.
    ///
    /// # Errors
    /// poll(2); reading a descriptor of an event.
    pub fn next(
        &mut self,
        folder: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Event> {
        loop {
            let ready = self.wait(folder, deadline)?;
            let mut terminate = SigTerm::No;
            for source in &ready {
                match source {
                    Source::Console => self.console.copy_pending(),
                    Source::Log => self.log.copy_pending(),
                    Source::Metrics => self.metrics.iter_mut().for_each(Output::copy_pending),
                    Source::Qmp => self.qmp.iter_mut().for_each(Qmp::read),
                    Source::Signals => terminate = self.read_signals()?,
                    Source::Vmm | Source::Companion | Source::Folder => {}
                }
            }
            self.look_after_vcpus();
            if ready.contains(&Source::Vmm) {
                self.vmm.reap();
                return Ok(Event::VmmEnded);
            }
            if ready.contains(&Source::Companion) {
                self.companion.reap();
                return Ok(Event::CompanionEnded);
            }
            if self.stays_powered_off() {
                return Ok(Event::PoweredOff);
            }
            if terminate == SigTerm::Yes {
                return Ok(Event::Terminate);
            }
            if ready.contains(&Source::Folder) {
                return Ok(Event::FolderChanged);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Event::TimedOut);
            }
        }
    }

    /// Whether the guest powered off under a VMM that does not exit by itself.
    fn stays_powered_off(&self) -> bool {
        let guest_end = self.console.guest_end.as_ref().and_then(|last| last.guest);
        self.config.jailed.is_some()
            && guest_end == Some(GuestEnd::Poweroff)
            && self.vmm.pidfd().is_some()
            && !self.ending
    }

    /// poll(2) on all descriptors; returns empty at the deadline, when a paused guest is due for a
    /// check, and after a signal.
    fn wait(
        &self,
        folder: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Vec<Source>> {
        let metrics = self.metrics.iter().flat_map(Output::sources);
        let sources = [
            (Source::Vmm, self.vmm.pidfd()),
            (Source::Companion, self.companion.pidfd()),
            (Source::Signals, Some(self.signals.as_fd())),
            (Source::Qmp, self.qmp.as_ref().and_then(Qmp::source)),
            (Source::Folder, folder),
        ];
        let (names, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = sources
            .into_iter()
            .filter_map(|(name, fd)| Some((name, fd?)))
            .chain(self.console.sources().map(|fd| (Source::Console, fd)))
            .chain(self.log.sources().map(|fd| (Source::Log, fd)))
            .chain(metrics.map(|fd| (Source::Metrics, fd)))
            .map(|(name, fd)| (name, PollFd::from_borrowed_fd(fd, PollFlags::IN)))
            .unzip();
        let due = self.qmp.as_ref().and_then(|qmp| qmp.vcpus.disk_check_due());
        let left = deadline.into_iter().chain(due).min().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = names.into_iter().zip(fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(name, _)| name).collect())
    }

    fn read_signals(&mut self) -> io::Result<SigTerm> {
        let mut terminate = SigTerm::No;
        while let Some(signal) = self.signals.next()? {
            if signal == Signal::TERM.as_raw() {
                terminate = SigTerm::Yes;
            } else if signal == Signal::USR1.as_raw() {
                self.follow_pause_file();
            } else {
                let own = [self.vmm.proc(), self.companion.proc()];
                let own: Vec<u32> =
                    own.into_iter().flatten().map(|ProcRef { pid, .. }| pid).collect();
                adopted::reap(&own);
            }
        }
        Ok(terminate)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SigTerm {
    Yes,
    No,
}
