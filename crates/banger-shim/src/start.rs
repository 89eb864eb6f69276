//! Starts the companion, waits for its socket, starts the VMM.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_shim::{Access, Child, Companion, ExitCause, Outcome, ShimEvent, ShimState};
use banger_sys::fs::{open_folder, remove};
use banger_sys::landlock::{Rights, Ruleset};
use banger_sys::spawn::{Credentials, Spawn, Spawned};
use rustix::fs::inotify;

use crate::life::Life;
use crate::qmp::Qmp;
use crate::shim::{Ends, Shim};
use crate::state::State;
use crate::turn::Event;

/// What every program needs to start: libraries and their configuration, facts about the system.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc", "/sys", "/dev/urandom"];
/// Devices that need no rights of their own.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/kvm"];

/// The cause of an end that came before the beginning.
pub fn failed(step: &str, error: impl ToString) -> ExitCause {
    ExitCause::LaunchFailed { step: step.into(), message: error.to_string() }
}

fn about(step: &str, child: &Child, error: impl std::fmt::Display) -> ExitCause {
    failed(step, format!("`{}`: {error}", child.program))
}

impl Shim {
    /// Starts both, and says so. What was started when it fails, or when the shim is asked to end
    /// meanwhile, is left to [`Shim::finish`].
    pub fn start(&mut self, ends: Ends, state: &State) -> Result<(), ExitCause> {
        if let Some(companion) = self.config.companion.clone() {
            self.start_companion(&companion, &ends)?;
        }
        self.start_vmm(&ends)?;
        drop(ends);
        let Some(vmm) = self.vmm.proc() else { return Err(failed("vmm", "it is gone")) };
        let running = ShimState { companion: self.companion.proc(), vmm };
        state.write_state(&running).map_err(|error| failed("state", error))?;
        crate::tell(&ShimEvent::Started(running));
        Ok(())
    }

    fn start_companion(&mut self, companion: &Companion, ends: &Ends) -> Result<(), ExitCause> {
        let at = |error: io::Error| about("companion", &companion.child, error);
        let name = &companion.ready_socket;
        // Left by an earlier run it would tell of a companion that is long gone.
        open_folder(Path::new(".")).and_then(|run| remove(run, name)).map_err(at)?;
        // Watched from before the start, so that it cannot appear unseen.
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).map_err(|error| at(error.into()))?;
        let seen = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, ".", seen).map_err(|error| at(error.into()))?;
        let deadline = Instant::now() + Duration::from_millis(companion.ready_timeout_ms);
        let spawned = spawn(&companion.child, ends.log.as_fd(), ends.log.as_fd(), None);
        let spawned = spawned.map_err(|text| about("companion", &companion.child, text))?;
        self.companion = Life::Running(spawned);
        // bind(2) makes the file and listen(2) follows at once, while the VMM that will connect has
        // not even been started: there is no need to ask whether it listens.
        while !is_socket(name) {
            match self.next(Some(watch.as_fd()), Some(deadline)).map_err(at)? {
                Event::FolderChanged => forget_events(watch.as_fd()),
                Event::CompanionEnded => {
                    let how = self.companion.outcome().map(describe).unwrap_or_default();
                    let text = format!("it ended before `{name}` was there: {how}");
                    return Err(about("companion", &companion.child, text));
                }
                Event::TimedOut => {
                    let limit = companion.ready_timeout_ms;
                    let text = format!("`{name}` was not there after {limit} ms");
                    return Err(about("companion", &companion.child, text));
                }
                Event::Asked => return Err(ExitCause::Asked),
                // There is none yet.
                Event::VmmEnded => {}
            }
        }
        Ok(())
    }

    fn start_vmm(&mut self, ends: &Ends) -> Result<(), ExitCause> {
        let at = |error: io::Error| about("vmm", &self.config.vmm, error);
        let mut theirs = None;
        if let Some(number) = self.config.qmp_fd {
            let (ours, other) = UnixStream::pair().map_err(at)?;
            self.qmp = Some(Qmp::new(ours).map_err(at)?);
            theirs = Some((other, number));
        }
        let qmp = theirs.as_ref().map(|(stream, number)| (stream.as_fd(), *number));
        let child = &self.config.vmm;
        let spawned = spawn(child, ends.console.as_fd(), ends.log.as_fd(), qmp);
        self.vmm = Life::Running(spawned.map_err(|text| about("vmm", child, text))?);
        Ok(())
    }
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited { code } => format!("exit code {code}"),
        Outcome::Signaled { signal } => format!("signal {signal}"),
    }
}

fn is_socket(name: &str) -> bool {
    std::fs::symlink_metadata(name).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Empties an inotify descriptor: the folder is looked at, whatever happened in it.
fn forget_events(watch: BorrowedFd<'_>) {
    let mut events = [0; 4096];
    while rustix::io::read(watch, &mut events).is_ok_and(|count| count > 0) {}
}

/// Starts a program, confined, with its files at their numbers.
fn spawn(
    child: &Child,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
    extra: Option<(BorrowedFd<'_>, RawFd)>,
) -> Result<Spawned, String> {
    let mut files: Vec<(File, RawFd)> = Vec::new();
    for file in &child.files {
        let opened = OpenOptions::new()
            .read(true)
            .write(file.access == Access::ReadWrite)
            .open(&file.path)
            .map_err(|error| format!("cannot open `{}`: {error}", file.path))?;
        files.push((opened, file.fd));
    }
    let mut descriptors: Vec<(BorrowedFd<'_>, RawFd)> =
        files.iter().map(|(file, number)| (file.as_fd(), *number)).collect();
    descriptors.extend(extra);
    let ruleset = view(child).map_err(|error| format!("cannot make its view: {error}"))?;
    let spawn = Spawn {
        program: Path::new(&child.program),
        args: &child.args,
        env: &[],
        run_as: child.run_as.map(|id| Credentials { uid: id, gid: id }),
        stdout,
        stderr,
        descriptors: &descriptors,
        ruleset: Some(ruleset),
    };
    spawn.start().map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// What a child may open.
fn view(child: &Child) -> io::Result<Ruleset> {
    let system = SYSTEM.iter().map(|path| (*path, Rights::ReadExecute));
    let devices = DEVICES.iter().map(|path| (*path, Rights::Device));
    let program = [(child.program.as_str(), Rights::ReadExecute)];
    let read = child.view.read.iter().map(|path| (path.as_str(), Rights::Read));
    let write = child.view.write.iter().map(|path| (path.as_str(), Rights::ReadWrite));
    system
        .chain(devices)
        .chain(program)
        .chain(read)
        .chain(write)
        .try_fold(Ruleset::new()?, |rules, (path, rights)| {
            rules.grant_path(Path::new(path), rights)
        })
}
