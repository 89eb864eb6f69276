//! Starts the companion, waits for its socket, and starts the VMM.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_shim::{Access, Child, Companion, ExitCause, Outcome, ShimEvent, ShimState, View};
use banger_sys::fs::{open_folder, remove};
use banger_sys::landlock::{Rights, Ruleset};
use banger_sys::spawn::{Credentials, Spawn, Spawned};
use rustix::fs::inotify;

use crate::child::ChildState;
use crate::event_loop::Event;
use crate::qmp::Qmp;
use crate::shim::{Shim, WriteEnds};
use crate::state::State;

/// Paths that every program needs: libraries and their configuration, facts about the system.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc", "/sys", "/dev/urandom"];
/// Devices without security relevance.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/kvm"];

/// Pause between two connections to a socket that does not listen yet.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);

/// The cause of a failed start.
pub fn failed(step: &str, error: impl ToString) -> ExitCause {
    ExitCause::LaunchFailed { step: step.into(), message: error.to_string() }
}

/// As [`failed`], naming the program.
pub fn about(step: &str, child: &Child, error: impl std::fmt::Display) -> ExitCause {
    failed(step, format!("`{}`: {error}", child.program))
}

impl Shim {
    /// Starts both and answers the parent. If it fails, or SIGTERM arrives meanwhile,
    /// [`Shim::finish`] ends the processes started so far.
    ///
    /// # Errors
    /// How the start failed: a program, its socket, the answer to the parent, or SIGTERM meanwhile.
    pub fn start(&mut self, ends: WriteEnds, state: &State) -> Result<(), ExitCause> {
        let companion = match self.config.companion.clone() {
            Some(companion) => Some(self.start_companion(&companion, &ends)?),
            None => None,
        };
        let (companion, connection) = companion.unzip();
        let jailed = match self.config.jailed.clone() {
            Some(jailed) => Some(self.start_jailed(&jailed, &ends)?),
            None => self.start_vmm(&ends, connection).map(|()| None)?,
        };
        drop(ends);
        let Some(vmm) = self.vmm.proc() else { return Err(failed("vmm", "the process has ended")) };
        let running = ShimState { companion: self.companion.proc(), vmm };
        let written = state.write_state(&running).and_then(|()| state.make_status());
        self.status = Some(written.map_err(|error| failed("state", error))?);
        self.folder = Some(state.try_clone().map_err(|error| failed("state", error))?);
        self.look_after_vcpus();
        banger_shim::gate::answer(&ShimEvent::Started(running));
        // The kernel takes 15 ms to remove an inotify watch, so that happens after the answer.
        drop((companion, jailed));
        Ok(())
    }

    fn start_companion(
        &mut self,
        companion: &Companion,
        ends: &WriteEnds,
    ) -> Result<(Watch, (UnixStream, RawFd)), ExitCause> {
        let at = |error: io::Error| about("companion", &companion.child, error);
        let name = &companion.ready_socket;
        let watch = Watch::of_socket(name, companion.ready_timeout_ms).map_err(at)?;
        let spawned = spawn(&companion.child, ends.log.as_fd(), ends.log.as_fd(), &[]);
        let spawned = spawned.map_err(|text| about("companion", &companion.child, text))?;
        self.companion = ChildState::Running(spawned);
        self.wait_socket(&watch, name, "companion", &companion.child)?;
        let connection = self.connect(&watch, companion)?;
        Ok((watch, (connection, companion.connection_fd)))
    }

    /// Connects to the companion's socket. bind(2) creates its file, and on a busy host others may
    /// run for long before listen(2) follows: until then connections are refused.
    fn connect(&mut self, watch: &Watch, companion: &Companion) -> Result<UnixStream, ExitCause> {
        let name = &companion.ready_socket;
        loop {
            match UnixStream::connect(name) {
                Ok(connection) => return Ok(connection),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(about("companion", &companion.child, error)),
            }
            let until = watch.deadline.min(Instant::now() + REFUSED_PAUSE);
            self.wait_until(watch, until, (name, "listen"), ("companion", &companion.child))?;
        }
    }

    /// Waits until a program has created its socket.
    ///
    /// # Errors
    /// The program ended, the time limit passed, or SIGTERM arrived.
    pub fn wait_socket(
        &mut self,
        watch: &Watch,
        name: &str,
        step: &str,
        child: &Child,
    ) -> Result<(), ExitCause> {
        while !is_socket(name) {
            self.wait_until(watch, watch.deadline, (name, "exist"), (step, child))?;
        }
        Ok(())
    }

    /// Waits for the next event, or until a time.
    ///
    /// # Errors
    /// The program ended, the time limit passed, or SIGTERM arrived.
    fn wait_until(
        &mut self,
        watch: &Watch,
        until: Instant,
        (name, does): (&str, &str),
        (step, child): (&str, &Child),
    ) -> Result<(), ExitCause> {
        let event = self.next(Some(watch.events.as_fd()), Some(until));
        let ended = |state: &ChildState| {
            let how = state.outcome().map(describe).unwrap_or_default();
            about(step, child, format!("it ended before `{name}` {does}ed: {how}"))
        };
        match event.map_err(|error| about(step, child, error))? {
            Event::FolderChanged => watch.drain_events(),
            Event::CompanionEnded => return Err(ended(&self.companion)),
            Event::VmmEnded => return Err(ended(&self.vmm)),
            Event::TimedOut if Instant::now() < watch.deadline => {}
            Event::TimedOut => {
                let text = format!("`{name}` did not {does} after {} ms", watch.timeout_ms);
                return Err(about(step, child, text));
            }
            Event::Terminate => return Err(ExitCause::Requested),
            Event::PoweredOff => return Err(ExitCause::PoweredOff),
        }
        Ok(())
    }

    /// Starts the VMM, or the jailer that starts it; a connection to the companion with the number
    /// at which the VMM finds it.
    ///
    /// # Errors
    /// The VMM cannot be started.
    pub fn start_vmm(
        &mut self,
        ends: &WriteEnds,
        connection: Option<(UnixStream, RawFd)>,
    ) -> Result<(), ExitCause> {
        let at = |error: io::Error| about("vmm", &self.config.vmm, error);
        let mut theirs = None;
        if let Some(number) = self.config.qmp_fd {
            let (ours, other) = UnixStream::pair().map_err(at)?;
            self.qmp = Some(Qmp::new(ours).map_err(at)?);
            theirs = Some((other, number));
        }
        // A VMM that holds a device is to be the only one, so that the device is free at its end.
        let passed = std::mem::take(&mut self.passed);
        let numbered = passed.iter().zip(&self.config.passed);
        let streams = theirs.iter().chain(&connection);
        let streams = streams.map(|(stream, number)| (stream.as_fd(), *number));
        let extra: Vec<(BorrowedFd<'_>, RawFd)> =
            numbered.map(|(fd, number)| (fd.as_fd(), *number)).chain(streams).collect();
        let child = &self.config.vmm;
        let spawned = spawn(child, ends.console.as_fd(), ends.log.as_fd(), &extra);
        self.vmm = ChildState::Running(spawned.map_err(|text| about("vmm", child, text))?);
        Ok(())
    }
}

/// Waits for the creation of a socket in the run folder: inotify(7).
pub struct Watch {
    events: OwnedFd,
    /// The deadline.
    pub deadline: Instant,
    timeout_ms: u64,
}

impl Watch {
    /// Starts watching for at most `timeout_ms`; call it before starting the program, so that the
    /// creation is not missed. Removes the socket of an earlier run.
    ///
    /// # Errors
    /// inotify(7), or the earlier socket cannot be removed.
    pub fn of_socket(name: &str, timeout_ms: u64) -> io::Result<Self> {
        open_folder(Path::new(".")).and_then(|run| remove(run, name))?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags)?;
        let seen = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&events, ".", seen)?;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        Ok(Self { events, deadline, timeout_ms })
    }

    /// Drains the descriptor: the caller checks the folder after any event.
    fn drain_events(&self) {
        let mut events = [0; 4096];
        while rustix::io::read(&self.events, &mut events).is_ok_and(|count| count > 0) {}
    }
}

/// Describes how a process ended.
pub fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited { code } => format!("exit code {code}"),
        Outcome::Signaled { signal } => format!("signal {signal}"),
    }
}

fn is_socket(name: &str) -> bool {
    std::fs::symlink_metadata(name).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Starts a program, confined, with its files at their descriptor numbers.
fn spawn(
    child: &Child,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
    extra: &[(BorrowedFd<'_>, RawFd)],
) -> Result<Spawned, String> {
    let mut files: Vec<(File, RawFd)> = Vec::new();
    for file in &child.files {
        let opened = OpenOptions::new()
            .read(true)
            .write(file.access == Access::ReadWrite)
            .open(file.path.as_path())
            .map_err(|error| format!("cannot open `{}`: {error}", file.path))?;
        files.push((opened, file.fd));
    }
    let mut descriptors: Vec<(BorrowedFd<'_>, RawFd)> =
        files.iter().map(|(file, number)| (file.as_fd(), *number)).collect();
    descriptors.extend(extra);
    let ruleset = child.view.as_ref().map(|paths| ruleset_for(child, paths)).transpose();
    let ruleset = ruleset.map_err(|error| format!("cannot build its Landlock rules: {error}"))?;
    let args: Vec<OsString> = child.args.iter().map(|arg| arg.as_os_str().to_owned()).collect();
    let spawn = Spawn {
        program: child.program.as_path(),
        args: &args,
        env: &[],
        run_as: child.run_as.map(|id| Credentials { uid: id, gid: id, group: child.group }),
        stdout,
        stderr,
        descriptors: &descriptors,
        ruleset,
    };
    spawn.start().map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// The Landlock rules of a child.
fn ruleset_for(child: &Child, paths: &View) -> io::Result<Ruleset> {
    let system = SYSTEM.iter().map(|path| (Path::new(path), Rights::ReadExecute));
    let devices = DEVICES.iter().map(|path| (Path::new(path), Rights::Device));
    let program = [(child.program.as_path(), Rights::ReadExecute)];
    let read = paths.read.iter().map(|path| (path.as_path(), Rights::Read));
    let write = paths.write.iter().map(|path| (path.as_path(), Rights::ReadWrite));
    system
        .chain(devices)
        .chain(program)
        .chain(read)
        .chain(write)
        .try_fold(Ruleset::new()?, |rules, (path, rights)| rules.grant_path(path, rights))
}
