//! Starts the companion, waits for its socket, starts the VMM.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::{Duration, Instant};

use banger_shim::ShimState;
use banger_shim::{Access, Child, Companion, Outcome, Proc, STATE_FILE, ShimConfig, ShimEvent};
use banger_sys::harden::{Confinement, View, confine};
use banger_sys::proc::{ProcId, start_time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::capped_log::Log;
use crate::qmp::Qmp;
use crate::supervise::outcome;

/// Descriptors of ours stay below this number's range; children find theirs from 100 on.
const OURS_FROM: i32 = 200;

/// Both run.
pub struct Running {
    /// Companion with its pidfd.
    pub companion: Option<(Process, OwnedFd)>,
    /// VMM with its pidfd.
    pub vmm: (Process, OwnedFd),
    /// The VMM's standard output.
    pub console: (File, Log),
    /// The VMM's standard error, and all the companion says.
    pub log: (File, Log),
    /// QMP.
    pub qmp: Option<Qmp>,
    /// Becomes readable on SIGTERM.
    pub asked: UnixStream,
}

/// Something could not be started; what was has been ended.
pub struct LaunchFailed {
    /// What.
    pub step: &'static str,
    /// Why.
    pub message: String,
    /// How the companion ended, if it was started.
    pub companion: Option<Outcome>,
    /// What was said so far.
    pub log_tail: String,
}

fn failed(step: &'static str, error: impl std::fmt::Display) -> LaunchFailed {
    LaunchFailed { step, message: error.to_string(), companion: None, log_tail: String::new() }
}

fn pipe() -> io::Result<(File, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((File::from(read), write))
}

/// Starts everything; on failure ends what was started.
pub fn launch(config: &ShimConfig) -> Result<Running, LaunchFailed> {
    let (asked, told) = UnixStream::pair().map_err(|error| failed("signals", error))?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, told)
        .map_err(|error| failed("signals", error))?;
    banger_sys::harden::become_subreaper().map_err(|error| failed("subreaper", error))?;
    let console_log = Log::open(&config.console).map_err(|e| failed("console log", e))?;
    let vmm_log = Log::open(&config.vmm_log).map_err(|e| failed("vmm log", e))?;
    let (console, console_end) = pipe().map_err(|error| failed("console", error))?;
    let (log, log_end) = pipe().map_err(|error| failed("log", error))?;
    let mut log = (log, vmm_log);
    let companion = match &config.companion {
        Some(companion) => Some(start_companion(companion, &log_end, &mut log)?),
        None => None,
    };
    let mut companion = companion;
    match start_vmm(config, console_end, log_end, companion.as_ref()) {
        Ok((vmm, qmp)) => {
            let console = (console, console_log);
            Ok(Running { companion, vmm, console, log, qmp, asked })
        }
        Err(mut failure) => {
            failure.companion = companion.as_mut().map(|(process, _)| end(process));
            drain(&mut log);
            failure.log_tail = log.1.tail();
            Err(failure)
        }
    }
}

/// Kills a child and waits until it is gone.
pub fn end(process: &mut Process) -> Outcome {
    // A child that has ended already cannot be killed, and need not be.
    let _ = process.kill();
    outcome(process.wait())
}

/// Passes on what there is in a pipe; true at its end.
pub fn drain(pipe: &mut (File, Log)) -> bool {
    use std::io::Read;
    let mut piece = [0; 16 * 1024];
    loop {
        match pipe.0.read(&mut piece) {
            Ok(0) => return true,
            Ok(count) => pipe.1.write(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

fn start_companion(
    companion: &Companion,
    output: &OwnedFd,
    log: &mut (File, Log),
) -> Result<(Process, OwnedFd), LaunchFailed> {
    let step = "companion";
    // Watched before it is looked for, so that it cannot appear unseen in between.
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(|error| failed(step, error))?;
    inotify::add_watch(&watch, ".", inotify::WatchFlags::CREATE)
        .map_err(|error| failed(step, error))?;
    let duplicate = || output.try_clone().map(Stdio::from);
    let stdout = duplicate().map_err(|error| failed(step, error))?;
    let stderr = duplicate().map_err(|error| failed(step, error))?;
    let mut process = start(&companion.child, stdout, stderr, None)
        .map_err(|error| failed(step, format!("{}: {error}", companion.child.program)))?;
    let ready = pidfd(&process).and_then(|pidfd| {
        let deadline = Instant::now() + Duration::from_millis(companion.ready_timeout_ms);
        wait_for_socket(&companion.ready_socket, &watch, &pidfd, deadline).map(|()| pidfd)
    });
    match ready {
        Ok(pidfd) => Ok((process, pidfd)),
        Err(error) => {
            let ended = end(&mut process);
            drain(log);
            let mut failure = failed(step, format!("{}: {error}", companion.child.program));
            failure.companion = Some(ended);
            failure.log_tail = log.1.tail();
            Err(failure)
        }
    }
}

fn wait_for_socket(
    name: &str,
    watch: &OwnedFd,
    pidfd: &OwnedFd,
    deadline: Instant,
) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let mut events = [std::mem::MaybeUninit::uninit(); 4096];
    loop {
        let meta = std::fs::symlink_metadata(name);
        if meta.is_ok_and(|meta| meta.file_type().is_socket()) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its socket did not appear"));
        }
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[1].revents().is_empty() {
            return Err(io::Error::other("it ended before its socket appeared"));
        }
        let mut reader = inotify::Reader::new(watch, &mut events);
        while reader.next().is_ok() {}
    }
}

type Vmm = ((Process, OwnedFd), Option<Qmp>);

fn start_vmm(
    config: &ShimConfig,
    console: OwnedFd,
    log: OwnedFd,
    companion: Option<&(Process, OwnedFd)>,
) -> Result<Vmm, LaunchFailed> {
    let step = "vmm";
    let qmp = match config.qmp_fd {
        Some(number) => {
            let (ours, theirs) = UnixStream::pair().map_err(|error| failed(step, error))?;
            ours.set_nonblocking(true).map_err(|error| failed(step, error))?;
            Some((ours, theirs, number))
        }
        None => None,
    };
    let extra = qmp.as_ref().map(|(_, theirs, number)| (theirs, *number));
    let mut process = start(&config.vmm, Stdio::from(console), Stdio::from(log), extra)
        .map_err(|error| failed(step, format!("{}: {error}", config.vmm.program)))?;
    let recorded = pidfd(&process).and_then(|pidfd| {
        let state = ShimState {
            companion: companion.map(|(process, _)| proc(process)),
            vmm: proc(&process),
        };
        crate::write_json(Path::new(&config.state_dir), STATE_FILE, &state)?;
        crate::tell(&ShimEvent::Started(state));
        Ok(pidfd)
    });
    match recorded {
        Ok(pidfd) => Ok(((process, pidfd), qmp.map(|(ours, ..)| Qmp::new(ours)))),
        Err(error) => {
            end(&mut process);
            Err(failed(step, error))
        }
    }
}

fn proc(process: &Process) -> Proc {
    // Not reaped yet, so its entry in /proc is there.
    Proc { pid: process.id(), start_time: start_time(process.id()).unwrap_or_default() }
}

fn pidfd(process: &Process) -> io::Result<OwnedFd> {
    let id = ProcId::of(process.id());
    let opened = id.map(|id| id.open()).transpose()?.flatten();
    opened.ok_or_else(|| io::Error::other("it is gone"))
}

/// What every program needs to start: libraries and their configuration, and facts about the
/// system.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc", "/sys", "/dev/urandom"];

/// What a child may open.
fn view(child: &Child) -> View {
    let all = |own: &[String], system: &[&str]| {
        own.iter().map(String::as_str).chain(system.iter().copied()).map(PathBuf::from).collect()
    };
    let mut read: Vec<PathBuf> = all(&child.view.read, &SYSTEM);
    read.push(PathBuf::from(&child.program));
    View { read, write: all(&child.view.write, &["/dev/null"]) }
}

/// Starts a program, confined, with its files at their numbers.
fn start(
    child: &Child,
    stdout: Stdio,
    stderr: Stdio,
    extra: Option<(&UnixStream, i32)>,
) -> io::Result<Process> {
    let mut command = Command::new(&child.program);
    command.args(&child.args).env_clear().stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let mut opened: Vec<OwnedFd> = Vec::new();
    let mut descriptors = Vec::new();
    for file in &child.files {
        let handle = OpenOptions::new()
            .read(true)
            .write(file.access == Access::ReadWrite)
            .open(&file.path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.path)))?;
        // Above every number that a child is promised, so that no promise overwrites another's
        // source.
        let high = rustix::io::fcntl_dupfd_cloexec(&handle, OURS_FROM)?;
        descriptors.push((high.as_raw_fd(), file.fd));
        opened.push(high);
    }
    if let Some((stream, number)) = extra {
        let high = rustix::io::fcntl_dupfd_cloexec(stream, OURS_FROM)?;
        descriptors.push((high.as_raw_fd(), number));
        opened.push(high);
    }
    let run_as = child.run_as.map(|uid| (uid, uid));
    let view = Some(view(child));
    confine(&mut command, Confinement { run_as, descriptors, view })?;
    let spawned = command.spawn();
    drop(opened);
    spawned
}
