//! One turn of the shim: waits until something happens, passes on what is only to be passed on, and
//! returns the rest.

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

/// What somebody has to decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The VMM has ended and was reaped.
    VmmEnded,
    /// The companion has ended and was reaped.
    CompanionEnded,
    /// The guest has powered off and its VMM does not end by that.
    PoweredOff,
    /// SIGTERM.
    Asked,
    /// The watched folder has changed.
    FolderChanged,
    /// The deadline has passed.
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
    /// The next event; `folder` is an inotify(7) descriptor. When several things happened at once,
    /// the end of the VMM counts before that of its companion, and both before a request.
    pub fn next(
        &mut self,
        folder: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Event> {
        loop {
            let ready = self.wait(folder, deadline)?;
            let mut asked = Asked::No;
            for source in &ready {
                match source {
                    Source::Console => self.console.pass_on(),
                    Source::Log => self.log.pass_on(),
                    Source::Metrics => self.metrics.iter_mut().for_each(Output::pass_on),
                    Source::Qmp => self.qmp.iter_mut().for_each(Qmp::read),
                    Source::Signals => asked = self.read_signals()?,
                    Source::Vmm | Source::Companion | Source::Folder => {}
                }
            }
            self.look_after_disks();
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
            if asked == Asked::Yes {
                return Ok(Event::Asked);
            }
            if ready.contains(&Source::Folder) {
                return Ok(Event::FolderChanged);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Event::TimedOut);
            }
        }
    }

    /// Whether the guest has powered off under a VMM that does not end by that.
    fn stays_powered_off(&self) -> bool {
        let last_words = self.console.last_words.as_ref().and_then(|last| last.guest);
        self.config.jailed.is_some()
            && last_words == Some(GuestEnd::Poweroff)
            && self.vmm.pidfd().is_some()
            && !self.ending
    }

    /// poll(2) on everything; empty at the deadline, when a held guest is to be looked after, and
    /// when a signal came between.
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
        let due = self.qmp.as_ref().and_then(|qmp| qmp.held.due());
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

    fn read_signals(&self) -> io::Result<Asked> {
        let mut asked = Asked::No;
        while let Some(signal) = self.signals.next()? {
            if signal == Signal::TERM.as_raw() {
                asked = Asked::Yes;
            } else {
                let own = [self.vmm.proc(), self.companion.proc()];
                let own: Vec<u32> =
                    own.into_iter().flatten().map(|ProcRef { pid, .. }| pid).collect();
                adopted::reap(&own);
            }
        }
        Ok(asked)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Yes,
    No,
}
