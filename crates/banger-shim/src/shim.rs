//! Everything the shim holds, and the one way it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use banger_shim::{Access, DiskTrouble, ExitCause, ExitStory, GuestEnd, ShimConfig, ShimStatus};
use banger_sys::harden::become_subreaper;
use banger_sys::signals::SignalFd;
use rustix::process::Signal;

use crate::adopted;
use crate::disk_errors::DiskErrors;
use crate::event_loop::Event;
use crate::last_words::LastWords;
use crate::life::Life;
use crate::output::Output;
use crate::qmp::Qmp;
use crate::start::failed;
use crate::state::StatusFile;

/// How long the VMM may take to end by itself once the companion has: a companion that goes because
/// its VMM is going is not the cause of the end.
const FOLLOWING: Duration = Duration::from_millis(200);

/// One VM's processes and their output.
pub struct Shim {
    /// What is wanted.
    pub config: ShimConfig,
    /// SIGTERM, which asks for the end, and SIGCHLD.
    pub signals: SignalFd,
    /// The companion.
    pub companion: Life,
    /// The VMM.
    pub vmm: Life,
    /// The VMM's standard output.
    pub console: Output,
    /// The VMM's standard error, and all the companion says.
    pub log: Output,
    /// The VMM's metrics, where it writes any.
    pub metrics: Option<Output>,
    /// What QMP said.
    pub qmp: Option<Qmp>,
    /// What a user should know while it runs, once both have started.
    pub status: Option<StatusFile>,
    /// Set once the end is decided on.
    pub ending: bool,
}

/// The children's ends of the output pipes. As long as they are held, the pipes do not end.
pub struct Ends {
    /// Of the console.
    pub console: OwnedFd,
    /// Of the log.
    pub log: OwnedFd,
}

impl Shim {
    /// Gets everything ready that needs no child.
    pub fn prepare(config: ShimConfig) -> Result<(Self, Ends), ExitCause> {
        // Before this a SIGTERM ends the shim, which has started nothing.
        let signals = SignalFd::new(&[Signal::TERM, Signal::CHILD])
            .map_err(|error| failed("signals", error))?;
        become_subreaper().map_err(|error| failed("subreaper", error))?;
        let at = |path: &str, error: io::Error| failed("logs", format!("`{path}`: {error}"));
        let open = |log: &banger_shim::CappedLog| {
            Output::new(log, config.reader).map_err(|error| at(&log.path, error))
        };
        let (mut console, console_end) = open(&config.console)?;
        let (mut log, log_end) = open(&config.vmm_log)?;
        let mut metrics = None;
        if let Some(jailed) = &config.jailed {
            let fifo = |name: &str, error: io::Error| failed("logs", format!("`{name}`: {error}"));
            if let Some(name) = &jailed.log_fifo {
                log.hear_fifo(name).map_err(|error| fifo(name, error))?;
            }
            if let Some((name, file)) = &jailed.metrics_fifo {
                let heard = Output::of_fifo(name, file, config.reader);
                metrics = Some(heard.map_err(|error| fifo(name, error))?);
            }
        }
        console.last_words = Some(LastWords::default());
        log.disk_errors = config.jailed.as_ref().map(|_| DiskErrors::default());
        let (companion, vmm) = (Life::NotStarted, Life::NotStarted);
        let shim = Self {
            config,
            signals,
            companion,
            vmm,
            console,
            log,
            metrics,
            qmp: None,
            status: None,
            ending: false,
        };
        Ok((shim, Ends { console: console_end, log: log_end }))
    }

    /// Resumes a guest that is held for a full disk when there is room again, and keeps the status
    /// file up to date.
    pub fn look_after_disks(&mut self) {
        let now = Instant::now();
        if let Some(qmp) = &mut self.qmp
            && qmp.held.due().is_some_and(|due| due <= now)
        {
            let disks = self.config.vmm.files.iter();
            let disks = disks.filter(|file| file.access == Access::ReadWrite);
            let free = disks.filter_map(|disk| {
                let stat = rustix::fs::statvfs(&disk.path).ok()?;
                Some(stat.f_bavail.saturating_mul(stat.f_frsize))
            });
            if qmp.held.try_again(now, free.min()) {
                qmp.resume();
            }
        }
        let held = self.qmp.as_ref().and_then(|qmp| qmp.held.trouble());
        let errors = self.log.disk_errors.as_ref().is_some_and(|errors| errors.seen);
        let disk = held.or(errors.then_some(DiskTrouble::GuestGotErrors));
        if let Some(file) = &mut self.status
            && let Err(error) = file.update(ShimStatus { disk })
        {
            eprintln!("banger-shim: status: {error}");
        }
    }

    /// What the guest did last. A kernel that panics resets the machine, and QMP tells only that.
    fn guest_last(&mut self) -> Option<GuestEnd> {
        let console = self.console.last_words.as_ref().and_then(|last| last.guest);
        let Some(qmp) = &mut self.qmp else { return console };
        qmp.read();
        match (qmp.guest, console) {
            (Some(GuestEnd::Reboot), Some(GuestEnd::Panic)) => console,
            (guest, _) => guest,
        }
    }

    /// Waits for the end of either child or for a request to end both.
    pub fn watch(&mut self) -> ExitCause {
        loop {
            match self.next(None, None) {
                Ok(Event::VmmEnded) => return ExitCause::VmmExited,
                Ok(Event::CompanionEnded) => return self.after_companion(),
                Ok(Event::Asked) => return ExitCause::Asked,
                Ok(Event::PoweredOff) => return ExitCause::PoweredOff,
                Ok(Event::FolderChanged | Event::TimedOut) => {}
                // What cannot be watched must not run.
                Err(error) => return failed("watch", error),
            }
        }
    }

    fn after_companion(&mut self) -> ExitCause {
        let deadline = Instant::now() + FOLLOWING;
        loop {
            match self.next(None, Some(deadline)) {
                Ok(Event::VmmEnded) => return ExitCause::VmmExited,
                Ok(Event::TimedOut) | Err(_) => return ExitCause::CompanionDied,
                Ok(
                    Event::Asked | Event::CompanionEnded | Event::FolderChanged | Event::PoweredOff,
                ) => {}
            }
        }
    }

    /// Ends what runs still, waits until it is gone, takes in what was said last, and tells how it
    /// went.
    pub fn finish(mut self, cause: ExitCause) -> ExitStory {
        self.ending = true;
        self.vmm.kill();
        self.companion.kill();
        while self.vmm.pidfd().is_some() || self.companion.pidfd().is_some() {
            if let Err(error) = self.next(None, None) {
                eprintln!("banger-shim: poll: {error}");
                self.vmm.reap();
                self.companion.reap();
            }
        }
        adopted::end_all();
        self.console.pass_on();
        self.log.pass_on();
        self.metrics.iter_mut().for_each(Output::pass_on);
        let guest = self.guest_last();
        ExitStory {
            vmm: self.vmm.outcome(),
            companion: self.companion.outcome(),
            guest,
            console_tail: self.console.tail(),
            vmm_log_tail: self.log.tail(),
            ..story_of_nothing(cause)
        }
    }
}

/// The story of a VM of which nothing was started.
pub fn story_of_nothing(cause: ExitCause) -> ExitStory {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ExitStory {
        cause,
        vmm: None,
        companion: None,
        guest: None,
        at_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        console_tail: String::new(),
        vmm_log_tail: String::new(),
    }
}
