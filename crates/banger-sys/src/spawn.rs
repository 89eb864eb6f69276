//! Starts a program with exactly what it is given: descriptors at agreed numbers, another uid, a
//! view of the file system; and ends it with its parent.
//!
//! On top of [`std::process::Command`], which forks, executes and hands back an errno; the steps
//! between fork(2) and execve(2) are here. Which of them failed comes back through a pipe that
//! execve closes.

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

/// Who a child runs as. Its supplementary groups are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
}

/// What to start, and with what. The child stays in the caller's working directory, its standard
/// input is `/dev/null`, and it has no other environment and no other descriptors than these.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Path of the program; not searched for.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [String],
    /// Its whole environment.
    pub env: &'a [(String, String)],
    /// Who it runs as, if not as its parent; for that the parent must be root.
    pub run_as: Option<Credentials>,
    /// Its standard output.
    pub stdout: BorrowedFd<'a>,
    /// Its standard error.
    pub stderr: BorrowedFd<'a>,
    /// Descriptors, and the numbers from 3 on at which it finds them.
    pub descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// What it may open, if not everything that its uid may.
    pub ruleset: Option<Ruleset>,
}

/// A started program.
#[derive(Debug)]
pub struct Spawned {
    /// To reap it with.
    pub child: Child,
    /// Becomes readable when it ends: pidfd_open(2).
    pub pidfd: OwnedFd,
    /// Reference to it.
    pub process: ProcRef,
}

/// What a start failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Before the fork: fork(2) itself, pipes, descriptors.
    Fork = 0,
    /// Putting descriptors at their numbers: dup2(2).
    Descriptors,
    /// Leaving the parent's session: setsid(2).
    Session,
    /// Core dumps off: setrlimit(2).
    Limits,
    /// Groups, gid, uid: setgroups(2), setresgid(2), setresuid(2).
    Credentials,
    /// prctl(2), PR_SET_NO_NEW_PRIVS.
    Privileges,
    /// landlock_restrict_self(2).
    Landlock,
    /// prctl(2), PR_SET_PDEATHSIG; or the parent had ended before it took effect.
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
            Self::Descriptors => "pass descriptors",
            Self::Session => "begin a session",
            Self::Limits => "set limits",
            Self::Credentials => "change uid and gid",
            Self::Privileges => "give up new privileges",
            Self::Landlock => "restrict the view of files",
            Self::ParentDeath => "follow the parent",
            Self::Exec => "execute",
            Self::Record => "look at the child",
        })
    }
}

/// A program could not be started; nothing of it is left.
#[derive(Debug)]
pub struct SpawnError {
    /// What failed.
    pub step: Step,
    /// How.
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
    /// Starts the program. In the child, in this order: all but the given descriptors are closed on
    /// exec; no signal is ignored or blocked; a session of its own; umask 077; no core dumps;
    /// groups, gid and uid; no_new_privs; landlock; and, since a change of credentials would clear
    /// it, SIGKILL at the end of the thread that called this (PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// The first step that failed. A descriptor's number below 3 or given twice is `InvalidInput`.
    pub fn start(self) -> Result<Spawned, SpawnError> {
        let (told, tell) = pipe().map_err(at(Step::Fork))?;
        let numbers = Numbers::take(self.descriptors, &tell).map_err(at(Step::Fork))?;
        drop(tell);
        let mut command = self.command().map_err(at(Step::Fork))?;
        prepare(&mut command, &numbers, self.run_as, self.ruleset);
        let started = command.spawn();
        // The other ends of `told` are here; the child's are closed by its exec or its end.
        drop((command, numbers));
        match started {
            Ok(child) => record(child).map_err(at(Step::Record)),
            Err(source) => Err(SpawnError { step: failed_step(told), source }),
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

/// The step whose number the child left, execve(2) if it left none.
fn failed_step(told: OwnedFd) -> Step {
    let mut byte = [0];
    match File::from(told).read(&mut byte) {
        Ok(1) => Step::from_byte(byte[0]).unwrap_or(Step::Fork),
        Ok(_) => Step::Exec,
        Err(_) => Step::Fork,
    }
}

fn record(mut child: Child) -> io::Result<Spawned> {
    // Not reaped before `child` is, so nobody else can have its process id.
    let process = proc::reference(child.id()).ok_or_else(|| io::Error::other("not in /proc"));
    let opened = process.and_then(|process| {
        let pidfd = proc::open(process)?.ok_or_else(|| io::Error::other("not the child"))?;
        Ok((process, pidfd))
    });
    match opened {
        Ok((process, pidfd)) => Ok(Spawned { child, pidfd, process }),
        Err(error) => {
            // Gone already if it cannot be killed.
            let _ = child.kill();
            child.wait()?;
            Err(error)
        }
    }
}

/// Descriptors above all promised numbers, to be put at these in the child; and the promised
/// numbers occupied in the parent, so that neither `Command` nor anybody else opens something there
/// that the child would overwrite.
struct Numbers {
    moves: Vec<(OwnedFd, RawFd)>,
    tell: OwnedFd,
    _occupied: Vec<OwnedFd>,
}

impl Numbers {
    fn take(wanted: &[(BorrowedFd<'_>, RawFd)], tell: &OwnedFd) -> io::Result<Self> {
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
        let tell = high(tell.as_fd())?;
        let mut occupied = Vec::new();
        for number in numbers {
            let held = rustix::io::fcntl_dupfd_cloexec(&tell, number)
                .map_err(|errno| limit_of(errno, above))?;
            // Another number means that this one is in use, which is as good.
            if held.as_raw_fd() == number {
                occupied.push(held);
            }
        }
        Ok(Self { moves, tell, _occupied: occupied })
    }
}

/// fcntl(2) says `EINVAL` for a number beyond RLIMIT_NOFILE, and `EMFILE` where all are taken.
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
    let tell = numbers.tell.as_raw_fd();
    let closure = move || {
        let done = in_child(parent, &moves, run_as, &mut ruleset);
        done.map_err(|(step, error)| {
            let byte = [step as u8];
            // SAFETY: writes one byte from a live buffer to a descriptor that stays open until
            // execve. Without it the errno alone is reported.
            let _ = unsafe { libc::write(tell, byte.as_ptr().cast(), 1) };
            error
        })
    };
    // SAFETY: as fork(2) demands of a threaded parent, `in_child` neither allocates nor takes
    // locks: it makes system calls and walks memory that was allocated before the fork.
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
    // It may have ended before the line above took effect; then nobody would end this child.
    if rustix::process::getppid() != Some(parent) {
        return Err((Step::ParentDeath, io::Error::from_raw_os_error(libc::ESRCH)));
    }
    Ok(())
}

/// dup2(2): `to` is then not close-on-exec.
#[expect(unsafe_code, reason = "descriptors are known by number here")]
fn put(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: in the child between fork and exec, where nothing owns a descriptor any more that is
    // used again: what `to` was is not needed by the program that is about to run.
    match unsafe { libc::dup2(from, to) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Changes the credentials of the calling thread, which after fork(2) is the only one.
fn change_to(credentials: Credentials) -> rustix::io::Result<()> {
    let uid = rustix::process::Uid::from_raw(credentials.uid);
    let gid = rustix::process::Gid::from_raw(credentials.gid);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests;
