//! Making processes: the fork that splits init from agent, and commands for a user.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};

pub use super::clone::Namespaces;
use super::clone::clone_process;

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(Pid),
}

/// fork(2).
///
/// Only for a process that has never had a second thread: the child uses the allocator and starts
/// threads.
///
/// # Errors
/// As fork(2).
#[expect(unsafe_code, reason = "std has no fork")]
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the program is single-threaded until the agent side of this fork starts serving,
    // so no lock can be held by a thread that the child does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid)
            .map(Forked::Parent)
            .ok_or_else(|| io::Error::other("fork returned no process id")),
    }
}

/// Whether the command's stdin becomes its controlling terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// stdin is a terminal.
    Controlling,
    /// stdin is a pipe or `/dev/null`.
    None,
}

/// What a new process does to itself between clone and exec.
pub struct ChildSetup {
    /// User to become.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
    /// Working folder, entered as that user.
    pub cwd: CString,
    /// Terminal handling.
    pub terminal: Terminal,
    /// Namespaces it begins in; new ones need root.
    pub namespaces: Namespaces,
}

/// A program with everything execve(2) takes.
pub struct Program {
    /// Paths to try in turn, as execvp(3) does with the folders of `PATH`; at least one.
    pub paths: Vec<CString>,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// Environment, `NAME=VALUE`.
    pub env: Vec<CString>,
}

/// A program to start, and where.
pub struct Launch<'a> {
    /// The program.
    pub program: Program,
    /// Its stdin, stdout and stderr.
    pub stdio: [OwnedFd; 3],
    /// What it becomes before it is executed.
    pub setup: ChildSetup,
    /// Folder of the cgroup v2 that the process begins in; none = this process' own.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A started process.
#[derive(Debug)]
pub struct Spawned {
    /// Leader of a session and process group of its own. The parent must wait for it.
    pub pid: Pid,
    /// Becomes readable when it has ended.
    pub pidfd: OwnedFd,
}

/// What failed between clone and exec; tells a bad folder from a missing program, which have the
/// same error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnStage {
    /// Session, terminal, limits or namespaces.
    Session = 1,
    /// Becoming the user.
    User = 2,
    /// Entering the working folder.
    Folder = 3,
    /// Executing the program (or cloning at all).
    Exec = 4,
}

/// Bytes in which a child reports its failure: the stage, then the error number.
const REPORT: usize = 1 + size_of::<i32>();

/// Starts a program as leader of its own session (so its process group is its pid), as the user
/// and in the folder of the setup, with the agent's OOM protection given back.
///
/// # Errors
/// What failed, and the system's answer.
pub fn spawn(launch: Launch<'_>) -> Result<Spawned, (SpawnStage, io::Error)> {
    let exec = |error: io::Error| (SpawnStage::Exec, error);
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| exec(errno.into()))?;
    let writer = above_stdio(writer).map_err(exec)?;
    let Launch { program, stdio, setup, cgroup } = launch;
    let [stdin, stdout, stderr] = stdio;
    let stdio = [
        above_stdio(stdin).map_err(exec)?,
        above_stdio(stdout).map_err(exec)?,
        above_stdio(stderr).map_err(exec)?,
    ];
    // Everything that needs memory is made before the child begins.
    let mut image = Image::new(&program);
    let mut child = || -> Infallible {
        let (stage, errno) = become_program(&stdio, &setup, &mut image);
        let [a, b, c, d] = errno.raw_os_error().to_ne_bytes();
        // A parent that is gone needs no report.
        let _ = rustix::io::write(&writer, &[stage as u8, a, b, c, d]);
        exit_now(127)
    };
    let spawned = clone_process(cgroup, setup.namespaces, &mut child).map_err(exec)?;
    drop(writer);
    match report(&reader) {
        None => Ok(spawned),
        Some(failure) => {
            let options = rustix::process::WaitOptions::empty();
            // It has ended or is about to: nothing else waits for it.
            let _ = rustix::process::waitpid(Some(spawned.pid), options);
            Err(failure)
        }
    }
}

/// What a child reports, or `None` when its program runs: execve(2) closes the pipe.
fn report(reader: &OwnedFd) -> Option<(SpawnStage, io::Error)> {
    let mut bytes = [0; REPORT];
    let length = loop {
        match rustix::io::read(reader, &mut bytes) {
            Err(Errno::INTR) => {}
            other => break other.unwrap_or(0),
        }
    };
    let [stage, a, b, c, d] = bytes;
    if length < REPORT {
        return None;
    }
    let stage = match stage {
        1 => SpawnStage::Session,
        2 => SpawnStage::User,
        3 => SpawnStage::Folder,
        _ => SpawnStage::Exec,
    };
    Some((stage, io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]))))
}

/// The same descriptor, or a duplicate that the child's stdin, stdout and stderr do not replace.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?)
}

/// A program as execve(2) wants it: arrays of pointers into [`Program`], ended by null.
struct Image<'a> {
    paths: &'a [CString],
    /// One free place before the program's name, for the shell of a script without a `#!` line.
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
}

/// Executes what the kernel does not recognise, as execvp(3) has it.
const SCRIPT_SHELL: &CStr = c"/bin/sh";

impl<'a> Image<'a> {
    fn new(program: &'a Program) -> Self {
        let pointers = |strings: &'a [CString]| strings.iter().map(|string| string.as_ptr());
        let end = std::iter::once(ptr::null());
        let first = std::iter::once(SCRIPT_SHELL.as_ptr());
        Self {
            paths: &program.paths,
            argv: first.chain(pointers(&program.argv)).chain(end.clone()).collect(),
            env: pointers(&program.env).chain(end).collect(),
        }
    }

    /// Tries the paths in turn; returns why none could be executed.
    fn execute(&mut self) -> Errno {
        let mut last = Errno::NOENT;
        let paths = self.paths;
        for path in paths {
            let errno = self.execute_one(path);
            match errno {
                // A later folder of `PATH` may have it.
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => last = Errno::ACCESS,
                _ => return errno,
            }
        }
        last
    }

    fn execute_one(&mut self, path: &CStr) -> Errno {
        let errno = execve(path, self.argv.get(1..).unwrap_or_default(), &self.env);
        if errno != Errno::NOEXEC {
            return errno;
        }
        if let Some(name) = self.argv.get_mut(1) {
            *name = path.as_ptr();
        }
        execve(SCRIPT_SHELL, &self.argv, &self.env);
        errno
    }
}

/// execve(2) with arrays that end in null. Returns only if it failed.
#[expect(unsafe_code, reason = "rustix has no execve for ordinary programs")]
fn execve(path: &CStr, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> Errno {
    // SAFETY: path and strings end in zero, both arrays in null; all outlive the call, which
    // returns only if it failed.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// What the child does before its program runs: raw system calls only. Returns only if it failed.
fn become_program(
    stdio: &[OwnedFd; 3],
    setup: &ChildSetup,
    image: &mut Image<'_>,
) -> (SpawnStage, Errno) {
    let [stdin, stdout, stderr] = stdio;
    let streams = rustix::stdio::dup2_stdin(stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(stderr));
    if let Err(errno) = streams {
        return (SpawnStage::Session, errno);
    }
    match become_child(setup) {
        Err(failure) => failure,
        Ok(()) => (SpawnStage::Exec, image.execute()),
    }
}

/// Ends this process without the handlers that its parent has registered.
#[expect(unsafe_code, reason = "std runs exit handlers, which are the parent's")]
fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Descriptors a command may open unless it asks for more, as login shells have it everywhere.
const OPEN_FILES_SOFT: u64 = 1024;

fn become_child(setup: &ChildSetup) -> Result<(), (SpawnStage, Errno)> {
    let session = |errno| (SpawnStage::Session, errno);
    let user = |errno| (SpawnStage::User, errno);
    // The agent holds SIGTERM back to wait for it, and Rust ignores SIGPIPE; both would be the
    // command's too (execve(2)).
    super::signal::clear_mask();
    super::signal::default_pipe();
    rustix::process::setsid().map_err(session)?;
    if setup.terminal == Terminal::Controlling {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(session)?;
    }
    if setup.namespaces == Namespaces::PidAndMount {
        mount_proc().map_err(session)?;
    }
    lower_limits();
    rustix::thread::set_thread_groups(&setup.groups).map_err(user)?;
    rustix::thread::set_thread_res_gid(setup.gid, setup.gid, setup.gid).map_err(user)?;
    rustix::thread::set_thread_res_uid(setup.uid, setup.uid, setup.uid).map_err(user)?;
    rustix::process::chdir(&setup.cwd).map_err(|errno| (SpawnStage::Folder, errno))
}

/// /proc of a new PID namespace, in a new mount namespace (pid_namespaces(7)).
fn mount_proc() -> Result<(), Errno> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(c"proc", c"/proc", c"proc", flags, c"")
}

/// The agent's own privileges against the OOM killer and on descriptors are not the command's.
/// In a guest without /proc the command has the inherited value.
fn lower_limits() {
    let path = c"/proc/self/oom_score_adj";
    if let Ok(file) = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    {
        let _ = rustix::io::write(file.as_fd(), b"0");
    }
    let limits = rustix::process::getrlimit(Resource::Nofile);
    let soft = Rlimit { current: Some(OPEN_FILES_SOFT), maximum: limits.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, soft);
}
