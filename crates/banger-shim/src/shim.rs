//! The state of the shim and its shutdown.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use banger_shim::{
    Access, ByteString, DiskTrouble, ExitCause, ExitStory, GuestEnd, ShimConfig, ShimStatus,
};
use banger_sys::harden::become_subreaper;
use banger_sys::signals::SignalFd;
use banger_sys::stdio::error_line;
use rustix::process::Signal;

use crate::adopted;
use crate::child::ChildState;
use crate::disk_errors::DiskErrors;
use crate::event_loop::Event;
use crate::guest_end::GuestEndScanner;
use crate::output::Output;
use crate::qmp::Qmp;
use crate::start::failed;
use crate::state::{State, StatusFile};
use crate::user_pause::VcpuCommand;

/// Time limit for the VMM to end after its companion: if the companion ended because the VMM is
/// ending, it is not the cause.
const FOLLOWING: Duration = Duration::from_millis(200);

/// The processes of one VM and their output.
pub struct Shim {
    /// The configuration.
    pub config: ShimConfig,
    /// Descriptors for the VMM that came through the gate, until it is started.
    pub passed: Vec<OwnedFd>,
    /// SIGTERM, which requests the end, SIGUSR1 after a change of [`banger_shim::PAUSE_FILE`], and
    /// SIGCHLD.
    pub signals: SignalFd,
    /// The companion.
    pub companion: ChildState,
    /// The VMM.
    pub vmm: ChildState,
    /// The VMM's standard output.
    pub console: Output,
    /// The VMM's standard error, and the companion's output.
    pub log: Output,
    /// The VMM's metrics, if it writes any.
    pub metrics: Option<Output>,
    /// The QMP connection.
    pub qmp: Option<Qmp>,
    /// The state folder, once both have started.
    pub folder: Option<State>,
    /// The status file, once both have started.
    pub status: Option<StatusFile>,
    /// Set once the end is decided.
    pub ending: bool,
}

/// The write ends of the output pipes. The pipes stay open as long as this value exists.
pub struct WriteEnds {
    /// Console.
    pub console: OwnedFd,
    /// Log.
    pub log: OwnedFd,
}

impl Shim {
    /// Prepares everything that needs no child.
    ///
    /// # Errors
    /// The failed step: signals, subreaper, or a log file.
    pub fn prepare(
        config: ShimConfig,
        passed: Vec<OwnedFd>,
    ) -> Result<(Self, WriteEnds), ExitCause> {
        // Before this, SIGTERM ends the shim, which has started nothing.
        let signals = SignalFd::new(&[Signal::TERM, Signal::USR1, Signal::CHILD])
            .map_err(|error| failed("signals", error))?;
        become_subreaper().map_err(|error| failed("subreaper", error))?;
        let at = |path: &ByteString, error: io::Error| failed("logs", format!("`{path}`: {error}"));
        let open = |log: &banger_shim::CappedLog| {
            Output::new(log, config.reader).map_err(|error| at(&log.path, error))
        };
        let (mut console, console_end) = open(&config.console)?;
        let (mut log, log_end) = open(&config.vmm_log)?;
        let mut metrics = None;
        if let Some(jailed) = &config.jailed {
            let fifo = |name: &str, error: io::Error| failed("logs", format!("`{name}`: {error}"));
            if let Some(name) = &jailed.log_fifo {
                log.add_fifo(name).map_err(|error| fifo(name, error))?;
            }
            if let Some((name, file)) = &jailed.metrics_fifo {
                let output = Output::from_fifo(name, file, config.reader);
                metrics = Some(output.map_err(|error| fifo(name, error))?);
            }
        }
        console.begin();
        console.guest_end = Some(GuestEndScanner::default());
        log.disk_errors = config.jailed.as_ref().map(|_| DiskErrors::default());
        let (companion, vmm) = (ChildState::NotStarted, ChildState::NotStarted);
        let shim = Self {
            config,
            passed,
            signals,
            companion,
            vmm,
            console,
            log,
            metrics,
            qmp: None,
            folder: None,
            status: None,
            ending: false,
        };
        Ok((shim, WriteEnds { console: console_end, log: log_end }))
    }

    /// Pauses or resumes the vCPUs as the daemon requests it.
    pub fn follow_pause_file(&mut self) {
        if let (Some(qmp), Some(folder)) = (&mut self.qmp, &self.folder)
            && let Some(command) = qmp.vcpus.request(folder.pause_requested())
        {
            qmp.send(command);
        }
    }

    /// Resumes a guest that is paused for a full disk once there is space, and updates the status
    /// file.
    pub fn look_after_vcpus(&mut self) {
        let now = Instant::now();
        if let Some(qmp) = &mut self.qmp
            && qmp.vcpus.disk_check_due().is_some_and(|due| due <= now)
        {
            let disks = self.config.vmm.files.iter();
            let disks = disks.filter(|file| file.access == Access::ReadWrite);
            let free = disks.filter_map(|disk| {
                let stat = rustix::fs::statvfs(disk.path.as_path()).ok()?;
                Some(stat.f_bavail.saturating_mul(stat.f_frsize))
            });
            if qmp.vcpus.disk_pause.try_again(now, free.min()) {
                qmp.send(VcpuCommand::Continue);
            }
        }
        let paused = self.qmp.as_ref().and_then(|qmp| qmp.vcpus.disk_pause.trouble());
        let vcpus = self.qmp.as_ref().map(|qmp| qmp.vcpus.state());
        let errors = self.log.disk_errors.as_ref().is_some_and(|errors| errors.seen);
        let disk = paused.or(errors.then_some(DiskTrouble::GuestGotErrors));
        if let Some(file) = &mut self.status
            && let Err(error) = file.update(ShimStatus { disk, vcpus })
        {
            error_line(format_args!("banger-shim: status: {error}"));
        }
    }

    /// The guest's last action. A panic resets the machine, and QMP reports only the reset.
    fn last_guest_action(&mut self) -> Option<GuestEnd> {
        let console = self.console.guest_end.as_ref().and_then(|last| last.guest);
        let Some(qmp) = &mut self.qmp else { return console };
        qmp.read();
        match (qmp.guest, console) {
            (Some(GuestEnd::Reboot), Some(GuestEnd::Panic)) => console,
            (guest, _) => guest,
        }
    }

    /// Waits for the end of either child, or for a request to end both.
    pub fn watch(&mut self) -> ExitCause {
        loop {
            match self.next(None, None) {
                Ok(Event::VmmEnded) => return ExitCause::VmmExited,
                Ok(Event::CompanionEnded) => return self.after_companion(),
                Ok(Event::Terminate) => return ExitCause::Requested,
                Ok(Event::PoweredOff) => return ExitCause::PoweredOff,
                Ok(Event::FolderChanged | Event::TimedOut) => {}
                // Without the event loop the children must not run.
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
                    Event::Terminate
                    | Event::CompanionEnded
                    | Event::FolderChanged
                    | Event::PoweredOff,
                ) => {}
            }
        }
    }

    /// Ends the remaining processes, waits for them, reads the rest of their output, and returns
    /// the exit story.
    pub fn finish(mut self, cause: ExitCause) -> ExitStory {
        self.ending = true;
        self.vmm.kill();
        self.companion.kill();
        while self.vmm.pidfd().is_some() || self.companion.pidfd().is_some() {
            if let Err(error) = self.next(None, None) {
                error_line(format_args!("banger-shim: poll: {error}"));
                self.vmm.reap();
                self.companion.reap();
            }
        }
        adopted::end_all();
        self.console.copy_pending();
        self.log.copy_pending();
        self.metrics.iter_mut().for_each(Output::copy_pending);
        let guest = self.last_guest_action();
        ExitStory {
            vmm: self.vmm.outcome(),
            companion: self.companion.outcome(),
            guest,
            console_tail: self.console.tail(),
            vmm_log_tail: self.log.tail(),
            ..story_without_start(cause)
        }
    }
}

/// The exit story of a run in which nothing was started.
pub fn story_without_start(cause: ExitCause) -> ExitStory {
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
