//! What a process takes from itself or from the children it starts.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    path_beneath_rules,
};
use rustix::process::Signal;

/// Makes the caller the reaper of its orphaned descendants: prctl(2), PR_SET_CHILD_SUBREAPER.
///
/// # Errors
/// prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// Closes every descriptor but the three standard ones: close_range(2). For the very start of a
/// program, before anything in it owns a descriptor.
///
/// # Errors
/// close_range(2); `ENOSYS` before Linux 5.9.
#[expect(unsafe_code, reason = "closes by number")]
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: the caller has opened nothing yet, so no owner of a descriptor is left with a number
    // that means something else later.
    match unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks every descriptor but the three standard ones close-on-exec: close_range(2) with
/// CLOSE_RANGE_CLOEXEC. Before Linux 5.11 nothing happens: there the caller relies on having opened
/// all of them so. Async-signal-safe.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub(crate) fn close_all_on_exec() {
    // SAFETY: sets a flag of descriptors, closes none.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// What a child is given and what is taken from it before it executes its program.
#[derive(Debug, Clone, Default)]
pub struct Confinement {
    /// Uid and gid to run as; supplementary groups are dropped with it.
    pub run_as: Option<(u32, u32)>,
    /// Descriptors of the caller and the numbers at which the child finds them. Numbers must not be
    /// those of other descriptors in this list.
    pub descriptors: Vec<(RawFd, RawFd)>,
    /// Paths beneath which it may open files; without it, wherever its uid may.
    pub view: Option<View>,
}

/// What a child sees of the file system, enforced by landlock(7) as far as the kernel knows how.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Files and folders to read and execute from.
    pub read: Vec<PathBuf>,
    /// Files and folders to write to as well.
    pub write: Vec<PathBuf>,
}

impl View {
    /// The rules for it; paths that do not exist are left out.
    fn rules(&self) -> io::Result<RulesetCreated> {
        // The newest rights this crate knows; older kernels enforce what they know of them.
        let abi = ABI::V5;
        let failed = |error: landlock::RulesetError| io::Error::other(error.to_string());
        Ruleset::default()
            .handle_access(AccessFs::from_all(abi))
            .and_then(Ruleset::create)
            .and_then(|rules| {
                rules.add_rules(path_beneath_rules(&self.read, AccessFs::from_read(abi)))
            })
            .and_then(|rules| {
                rules.add_rules(path_beneath_rules(&self.write, AccessFs::from_all(abi)))
            })
            .map_err(failed)
    }
}

/// Confines the child that `command` will start:
///
/// 1. descriptors are put at their numbers; all others are closed on exec, standard ones excepted;
/// 2. groups, gid and uid are set (setgroups(2), setgid(2), setuid(2));
/// 3. it is killed when the thread that started it ends (PR_SET_PDEATHSIG; set after the uid, since
///    a change of credentials clears it), and cannot gain privileges (PR_SET_NO_NEW_PRIVS);
/// 4. it sees of the file system what its [`View`] holds, if it has one (landlock(7)).
///
/// # Errors
/// The view cannot be set up.
#[expect(unsafe_code, reason = "runs code between fork and exec")]
pub fn confine(command: &mut Command, confinement: Confinement) -> io::Result<()> {
    let parent = std::process::id();
    let mut view = confinement.view.as_ref().map(View::rules).transpose()?;
    // SAFETY: the closure makes system calls and walks memory that was allocated before the fork.
    // The one parent that uses this, the shim, has a single thread, so that even an allocation in
    // an error path finds no lock held, as fork(2) warns of.
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
            match view.take().map(RulesetCreated::restrict_self) {
                Some(Err(_)) => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
                Some(Ok(_)) | None => Ok(()),
            }
        });
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_sees_its_view_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (seen, hidden) = (folder.path().join("seen"), folder.path().join("hidden"));
        for path in [&seen, &hidden] {
            std::fs::write(path, "text").unwrap();
        }
        let system = ["/usr", "/bin", "/lib", "/lib64", "/etc"].map(PathBuf::from);
        let view =
            View { read: [&system[..], std::slice::from_ref(&seen)].concat(), write: Vec::new() };
        let cat = |path: &PathBuf| {
            let mut command = Command::new("cat");
            command.arg(path).stderr(std::process::Stdio::null());
            let confinement = Confinement { view: Some(view.clone()), ..Confinement::default() };
            confine(&mut command, confinement).unwrap();
            command.output().unwrap().status.success()
        };
        assert!(cat(&seen));
        // Landlock is best effort: a kernel without it shows everything.
        let enforced = std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok()
            && Ruleset::default().handle_access(AccessFs::ReadFile).is_ok();
        assert!(enforced && !cat(&hidden));
    }

    #[test]
    fn descriptors_arrive_at_their_numbers_and_others_do_not() {
        use std::os::fd::AsRawFd;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "through a descriptor").unwrap();
        let open = std::fs::File::open(file.path()).unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&open, 200).unwrap();
        let mut command = Command::new("sh");
        let script = format!("cat /proc/self/fd/100; ls /proc/$$/fd/{}", high.as_raw_fd());
        command.args(["-c", &script]);
        let descriptors = vec![(high.as_raw_fd(), 100)];
        confine(&mut command, Confinement { descriptors, ..Confinement::default() }).unwrap();
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "through a descriptor");
    }
}
