//! Making processes: the fork that splits init from agent, and commands for a user.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(Pid),
}

/// fork(2).
///
/// Only for a process that has never had a second thread: the child goes on to use the allocator
/// and to start threads.
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

/// What a new process does to itself between fork and exec.
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
}

/// What failed between fork and exec; tells a bad folder from a missing program, which have the
/// same error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnStage {
    /// Session, terminal or limits.
    Session = 1,
    /// Becoming the user.
    User = 2,
    /// Entering the working folder.
    Folder = 3,
    /// Executing the program (or forking at all).
    Exec = 4,
}

/// Starts `command` as leader of its own session (so its process group is its pid), as the user
/// and in the folder of `setup`, with the agent's oom protection given back.
///
/// # Errors
/// What failed, and the system's answer.
#[expect(unsafe_code, reason = "what happens between fork and exec can only be given by pre_exec")]
pub fn spawn(mut command: Command, setup: ChildSetup) -> Result<Child, (SpawnStage, io::Error)> {
    let exec = |error: io::Error| (SpawnStage::Exec, error);
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| exec(errno.into()))?;
    let prepare = move || match become_child(&setup) {
        Ok(()) => Ok(()),
        Err((stage, errno)) => {
            // If the pipe is broken the stage is unknown, the error is still reported.
            let _ = rustix::io::write(&writer, &[stage as u8]);
            Err(io::Error::from_raw_os_error(errno.raw_os_error()))
        }
    };
    // SAFETY: the closure only makes raw system calls on memory prepared before the fork; it
    // neither allocates nor takes locks.
    unsafe { command.pre_exec(prepare) };
    let spawned = command.spawn();
    // The command owns the pipe's writing end.
    drop(command);
    spawned.map_err(|error| (failed_stage(&reader), error))
}

fn failed_stage(reader: &OwnedFd) -> SpawnStage {
    let mut byte = [0];
    match rustix::io::read(reader, &mut byte) {
        Ok(1) if byte[0] == SpawnStage::Session as u8 => SpawnStage::Session,
        Ok(1) if byte[0] == SpawnStage::User as u8 => SpawnStage::User,
        Ok(1) if byte[0] == SpawnStage::Folder as u8 => SpawnStage::Folder,
        _ => SpawnStage::Exec,
    }
}

/// Descriptors a command may open unless it asks for more, as login shells have it everywhere.
const OPEN_FILES_SOFT: u64 = 1024;

fn become_child(setup: &ChildSetup) -> Result<(), (SpawnStage, Errno)> {
    let session = |errno| (SpawnStage::Session, errno);
    let user = |errno| (SpawnStage::User, errno);
    // The agent holds SIGTERM back to wait for it; the mask would be the command's too (execve(2)).
    super::signal::clear_mask();
    // std leaves the mask as it is, and the agent's threads have SIGTERM blocked.
    crate::sys::signal::unblock_all()
        .map_err(|error| session(Errno::from_io_error(&error).unwrap_or(Errno::INVAL)))?;
    rustix::process::setsid().map_err(session)?;
    if setup.terminal == Terminal::Controlling {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(session)?;
    }
    lower_limits();
    rustix::thread::set_thread_groups(&setup.groups).map_err(user)?;
    rustix::thread::set_thread_res_gid(setup.gid, setup.gid, setup.gid).map_err(user)?;
    rustix::thread::set_thread_res_uid(setup.uid, setup.uid, setup.uid).map_err(user)?;
    rustix::process::chdir(&setup.cwd).map_err(|errno| (SpawnStage::Folder, errno))
}

/// The agent's own privileges against the OOM killer and on descriptors are not the command's.
/// A guest without /proc keeps the inherited value: not worth failing the command for.
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
