//! What a process takes from itself or from the children it starts.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

/// Makes the caller the reaper of its orphaned descendants: prctl(2), PR_SET_CHILD_SUBREAPER.
///
/// # Errors
/// prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// What a child is given and what is taken from it before it executes its program.
#[derive(Debug, Clone, Default)]
pub struct Confinement {
    /// Uid and gid to run as; supplementary groups are dropped with it.
    pub run_as: Option<(u32, u32)>,
    /// Descriptors of the caller and the numbers at which the child finds them. Numbers must not be
    /// those of other descriptors in this list.
    pub descriptors: Vec<(RawFd, RawFd)>,
}

/// Confines the child that `command` will start:
///
/// 1. descriptors are put at their numbers; all others are closed on exec, standard ones excepted;
/// 2. groups, gid and uid are set (setgroups(2), setgid(2), setuid(2));
/// 3. it is killed when the thread that started it ends (PR_SET_PDEATHSIG; set after the uid, since a
///    change of credentials clears it), and cannot gain privileges (PR_SET_NO_NEW_PRIVS).
#[expect(unsafe_code, reason = "runs code between fork and exec")]
pub fn confine(command: &mut Command, confinement: Confinement) {
    let parent = std::process::id();
    // SAFETY: the closure only makes system calls through rustix and walks memory that was allocated
    // before the fork; it neither allocates nor takes locks, as fork(2) demands of a threaded parent.
    unsafe {
        command.pre_exec(move || {
            take_descriptors(&confinement.descriptors)?;
            if let Some((uid, gid)) = confinement.run_as {
                drop_to(uid, gid)?;
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the line above took effect.
            if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32)
                != Some(parent)
            {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            rustix::thread::set_no_new_privs(true)?;
            rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
            Ok(())
        });
    }
}

#[expect(unsafe_code, reason = "descriptors are known by number here")]
fn take_descriptors(descriptors: &[(RawFd, RawFd)]) -> io::Result<()> {
    use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
    for (from, to) in descriptors {
        // SAFETY: the caller owns `from` for as long as the command exists; `to` is a number that
        // nothing in this child uses, and stays open on purpose (into_raw_fd).
        unsafe {
            let from = BorrowedFd::borrow_raw(*from);
            let mut target = OwnedFd::from_raw_fd(*to);
            let duplicated = rustix::io::dup2(from, &mut target);
            let _ = target.into_raw_fd();
            duplicated?;
        }
    }
    Ok(())
}

/// Sets the credentials of the calling thread, which after fork(2) is the only one.
fn drop_to(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
