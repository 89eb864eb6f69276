//! Starts a program with an exact set of descriptors, credentials and file access, and kills it
//! when its parent ends.
//!
//! Uses [`std::process::Command`], which forks, executes and returns an errno; this module adds the
//! steps between fork(2) and execve(2). The child reports the failed step through a pipe that
//! execve closes.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use banger_base::ProcRef;
use rustix::process::{Resource, Rlimit, Signal};

use crate::landlock::Ruleset;
use crate::proc;

/// User and group of a child. Its other supplementary groups are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Its only supplementary group, if it has one.
    pub group: Option<u32>,
}

/// A program and its resources. The child keeps the caller's working directory, its standard input
/// is `/dev/null`, and it has no other environment and no other descriptors than these.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Path of the program; `PATH` is not searched.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(String, String)],
    /// Credentials, if not those of the parent; requires root.
    pub run_as: Option<Credentials>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
    /// Descriptors, each with its number (3 or higher) in the child.
    pub descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// Landlock rules, if the child is confined.
    pub ruleset: Option<Ruleset>,
}

/// A started program.
#[derive(Debug)]
pub struct Spawned {
    /// Handle for reaping the process.
    pub child: Child,
    /// Becomes readable when the process ends: pidfd_open(2).
    pub pidfd: OwnedFd,
    /// Reference to the process.
    pub process: ProcRef,
}

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Before the fork: fork(2) itself, pipes, descriptors.
    Fork = 0,
    /// Moving descriptors to their numbers: dup2(2).
    Descriptors,
    /// Leaving the parent's session: setsid(2).
    Session,
    /// Disabling core dumps: setrlimit(2).
    Limits,
    /// Groups, gid, uid: setgroups(2), setresgid(2), setresuid(2).
    Credentials,
    /// prctl(2), PR_SET_NO_NEW_PRIVS.
    Privileges,
    /// landlock_restrict_self(2).
    Landlock,
    /// prctl(2), PR_SET_PDEATHSIG; or the parent ended before it took effect.
    ParentDeath,
    /// execve(2).
    Exec,
    /// After the start: pidfd_open(2), proc(5).
    Record,
}

impl Step {
    fn from_byte(byte: u8) -> Option<Self> {
        let in_child = [
            Self::Descriptors,
            Self::Session,
            Self::Limits,
            Self::Credentials,
            Self::Privileges,
            Self::Landlock,
            Self::ParentDeath,
        ];
        in_child.into_iter().find(|step| *step as u8 == byte)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fork => "prepare the child",
            Self::Descriptors => "set up descriptors",
            Self::Session => "create a session",
            Self::Limits => "set limits",
            Self::Credentials => "change uid and gid",
            Self::Privileges => "set no_new_privs",
            Self::Landlock => "restrict file access",
            Self::ParentDeath => "set the parent-death signal",
            Self::Exec => "execute",
            Self::Record => "open the child's pidfd",
        })
    }
}

/// A failed start; no process is left.
#[derive(Debug)]
pub struct SpawnError {
    /// The failed step.
    pub step: Step,
    /// The error of that step.
    pub source: io::Error,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.step)
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn at(step: Step) -> impl Fn(io::Error) -> SpawnError {
    move |source| SpawnError { step, source }
}

impl Spawn<'_> {
    /// Starts the program. In the child, in this order: all other descriptors become close-on-exec;
    /// signal dispositions and mask are reset; a new session; umask 077; no core dumps; groups, gid
    /// and uid; no_new_privs; landlock; and last, because a change of credentials would clear it,
    /// SIGKILL when the thread that called this ends (PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// The first step that failed. `InvalidInput` for a descriptor number below 3 or given twice.
    pub fn start(self) -> Result<Spawned, SpawnError> {
        let (errors, report) = pipe().map_err(at(Step::Fork))?;
        let numbers = Numbers::take(self.descriptors, &report).map_err(at(Step::Fork))?;
        drop(report);
        let mut command = self.command().map_err(at(Step::Fork))?;
        prepare(&mut command, &numbers, self.run_as, self.ruleset);
        let started = command.spawn();
        // Closes the parent's copies of the write end; the child's are closed by exec or exit.
        drop((command, numbers));
        match started {
            Ok(child) => record(child).map_err(at(Step::Record)),
            Err(source) => Err(SpawnError { step: failed_step(errors), source }),
        }
    }

    fn command(&self) -> io::Result<Command> {
        if !self.program.as_os_str().as_encoded_bytes().contains(&b'/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path"));
        }
        let stdio = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(Stdio::from);
        let mut command = Command::new(self.program);
        command.args(self.args).env_clear();
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(stdio(self.stdout)?).stderr(stdio(self.stderr)?);
        Ok(command)
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Into::into)
}

/// The step whose number the child wrote; execve(2) if it wrote none.
fn failed_step(errors: OwnedFd) -> Step {
    let mut byte = [0];
    match File::from(errors).read(&mut byte) {
        Ok(1) => Step::from_byte(byte[0]).unwrap_or(Step::Fork),
        Ok(_) => Step::Exec,
        Err(_) => Step::Fork,
    }
}

fn record(mut child: Child) -> io::Result<Spawned> {
    // `child` has not been reaped, so its process id cannot be reused yet.
    let process = proc::reference(child.id()).ok_or_else(|| io::Error::other("not in /proc"));
    let opened = process.and_then(|process| {
        let pidfd = proc::open(process)?.ok_or_else(|| io::Error::other("not the child"))?;
        Ok((process, pidfd))
    });
    match opened {
        Ok((process, pidfd)) => Ok(Spawned { child, pidfd, process }),
        Err(error) => {
            // The child may have ended already.
            let _ = child.kill();
            child.wait()?;
            Err(error)
        }
    }
}

/// Copies of the descriptors, numbered above all target numbers; and placeholders at the target
/// numbers in the parent, so that neither `Command` nor another thread opens a descriptor there
/// that the child would overwrite.
struct Numbers {
    moves: Vec<(OwnedFd, RawFd)>,
    report: OwnedFd,
    _occupied: Vec<OwnedFd>,
}

impl Numbers {
    fn take(wanted: &[(BorrowedFd<'_>, RawFd)], report: &OwnedFd) -> io::Result<Self> {
        let mut numbers: Vec<RawFd> = wanted.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        let twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
        if twice || numbers.first().is_some_and(|first| *first < 3) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "bad descriptor numbers"));
        }
        let above = numbers.last().map_or(3, |last| last.saturating_add(1));
        let high = |fd: BorrowedFd<'_>| {
            rustix::io::fcntl_dupfd_cloexec(fd, above).map_err(|errno| limit_of(errno, above))
        };
        let mut moves = Vec::new();
        for (fd, number) in wanted {
            moves.push((high(*fd)?, *number));
        }
        let report = high(report.as_fd())?;
        let mut occupied = Vec::new();
        for number in numbers {
            let held = rustix::io::fcntl_dupfd_cloexec(&report, number)
                .map_err(|errno| limit_of(errno, above))?;
            // Another number: the wanted one is in use, so no placeholder is needed.
            if held.as_raw_fd() == number {
                occupied.push(held);
            }
        }
        Ok(Self { moves, report, _occupied: occupied })
    }
}

/// fcntl(2) returns `EINVAL` for a number above RLIMIT_NOFILE, and `EMFILE` if all are in use.
fn limit_of(errno: rustix::io::Errno, highest: RawFd) -> io::Error {
    use rustix::io::Errno;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match (errno, limit) {
        (Errno::INVAL | Errno::MFILE, Some(limit)) => io::Error::other(format!(
            "the limit of open files (RLIMIT_NOFILE) is {limit}, too low for {} descriptors: \
             raise the hard limit, `ulimit -Hn` or `LimitNOFILE=`",
            highest.saturating_add(1)
        )),
        _ => errno.into(),
    }
}

#[expect(unsafe_code, reason = "runs code between fork and exec")]
fn prepare(
    command: &mut Command,
    numbers: &Numbers,
    run_as: Option<Credentials>,
    mut ruleset: Option<Ruleset>,
) {
    let parent = rustix::process::getpid();
    let moves: Vec<(RawFd, RawFd)> =
        numbers.moves.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
    let report = numbers.report.as_raw_fd();
    let closure = move || {
        let done = in_child(parent, &moves, run_as, &mut ruleset);
        done.map_err(|(step, error)| {
            let byte = [step as u8];
            // SAFETY: writes one byte from a live buffer to a descriptor that stays open until
            // execve. If the write fails, only the errno is reported.
            let _ = unsafe { libc::write(report, byte.as_ptr().cast(), 1) };
            error
        })
    };
    // SAFETY: fork(2) of a multi-threaded process requires that `in_child` neither allocates nor
    // locks: it makes system calls and reads memory allocated before the fork.
    unsafe { command.pre_exec(closure) };
}

type Failed = (Step, io::Error);

fn in_child(
    parent: rustix::process::Pid,
    moves: &[(RawFd, RawFd)],
    run_as: Option<Credentials>,
    ruleset: &mut Option<Ruleset>,
) -> Result<(), Failed> {
    let failed = |step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    crate::harden::close_all_on_exec();
    for (from, to) in moves {
        put(*from, *to).map_err(|error| (Step::Descriptors, error))?;
    }
    crate::signals::reset();
    rustix::process::setsid().map_err(failed(Step::Session))?;
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(failed(Step::Limits))?;
    if let Some(credentials) = run_as {
        change_to(credentials).map_err(failed(Step::Credentials))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(failed(Step::Privileges))?;
    if let Some(ruleset) = ruleset.take() {
        ruleset.restrict_self().map_err(|error| (Step::Landlock, error))?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed(Step::ParentDeath))?;
    // The parent may have ended before the call above took effect; then no signal would be sent.
    if rustix::process::getppid() != Some(parent) {
        return Err((Step::ParentDeath, io::Error::from_raw_os_error(libc::ESRCH)));
    }
    Ok(())
}

/// dup2(2): `to` is then not close-on-exec.
#[expect(unsafe_code, reason = "descriptors are known by number here")]
fn put(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: runs in the child between fork and exec, where no owner of a descriptor is used
    // again; the new program does not need the descriptor previously at `to`.
    match unsafe { libc::dup2(from, to) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Changes the credentials of the calling thread, which after fork(2) is the only one.
fn change_to(credentials: Credentials) -> rustix::io::Result<()> {
    let uid = rustix::process::Uid::from_raw(credentials.uid);
    let gid = rustix::process::Gid::from_raw(credentials.gid);
    let group = credentials.group.map(rustix::process::Gid::from_raw);
    rustix::thread::set_thread_groups(group.as_slice())?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests;
