//! Limits the system calls of a thread and of everything it starts: seccomp(2), through the
//! `seccompiler` crate.
//!
//! The list allows what programs need that read and write files and start other programs. Any other
//! call fails with `ENOSYS`, as on a kernel without it, so that C libraries use an older call.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Flags of clone(2) for new namespaces.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Calls of all architectures. Not among them: sockets, io_uring (which opens files and sockets
/// without system calls), namespaces, mounts, access to other processes, keys, BPF, and changes of
/// a file's mode, owner, times and attributes, which Landlock does not restrict.
const ALLOWED: &[c_long] = &[
    // Files by descriptor.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_getdents64,
    // Files by path: Landlock decides which.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_umask,
    // Waits.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_delete,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigpending,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_kill,
    libc::SYS_tgkill,
    // Processes.
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pidfd_open,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_setpgid,
    libc::SYS_getsid,
    libc::SYS_setsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_getpriority,
    libc::SYS_getrusage,
    libc::SYS_prctl,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    // Programs may confine themselves further, as xz does.
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// Earlier calls that later architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_alarm,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[libc::SYS_renameat];

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Calls that are allowed with certain arguments only.
fn conditional() -> Result<[(c_long, SeccompCondition); 2], seccompiler::BackendError> {
    // Threads and processes, without new namespaces. clone3(2) has its flags in memory, which a
    // filter cannot read.
    let clone =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NAMESPACES), 0)?;
    // The caller's own limits: the first argument is a process id.
    let limits = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?;
    Ok([(libc::SYS_clone, clone), (libc::SYS_prlimit64, limits)])
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let all = ALLOWED.iter().chain(ALLOWED_HERE);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        all.map(|call| (*call, Vec::new())).collect();
    for (call, condition) in conditional()? {
        rules.insert(call, vec![SeccompRule::new(vec![condition])?]);
    }
    let otherwise = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

/// Allows the calling thread, and all threads and processes that it starts, only the calls that
/// work with files needs; irreversibly. Also sets no_new_privs (prctl(2)).
///
/// # Errors
/// seccomp(2), for example because the kernel has no filters ([`is_supported`]).
pub fn allow_files_only() -> io::Result<()> {
    let program = program().map_err(refused)?;
    seccompiler::apply_filter(&program).map_err(refused)
}

/// Whether the kernel has filters of system calls: SECCOMP_GET_ACTION_AVAIL of seccomp(2).
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub fn is_supported() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads one number from a live variable.
    unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0_u32,
            std::ptr::from_ref(&action),
        ) == 0
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "system calls that must fail")]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn errno(result: c_long) -> Option<i32> {
        (result == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }

    /// Calls with arguments that are harmless if they are allowed.
    fn forbidden(path: &std::ffi::CStr) -> Vec<(&'static str, Option<i32>)> {
        // SAFETY: none of the calls writes to memory; paths are live strings.
        unsafe {
            let mut all = Vec::new();
            for (name, family) in [("inet", libc::AF_INET), ("unix", libc::AF_UNIX)] {
                let kind = libc::SOCK_STREAM;
                all.push((name, errno(libc::syscall(libc::SYS_socket, family, kind, 0))));
            }
            all.push(("io_uring", errno(libc::syscall(libc::SYS_io_uring_setup, 1, 0))));
            all.push(("unshare", errno(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER))));
            let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
            let cloned = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
            if cloned == 0 {
                libc::_exit(0);
            }
            all.push(("clone", errno(cloned)));
            let traced =
                libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), 0, 0);
            all.push(("ptrace", errno(traced)));
            let here = path.as_ptr();
            let changed = libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, here, 0o777);
            all.push(("fchmodat", errno(changed)));
            let nothing = std::ptr::null::<u8>();
            let stamped = libc::syscall(libc::SYS_utimensat, libc::AT_FDCWD, here, nothing, 0);
            all.push(("utimensat", errno(stamped)));
            let marked = libc::syscall(libc::SYS_setxattr, here, c"user.x".as_ptr(), here, 1, 0);
            all.push(("setxattr", errno(marked)));
            let pid = libc::getppid();
            let limited =
                libc::syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_CORE, nothing, nothing);
            all.push(("prlimit of another process", errno(limited)));
            all
        }
    }

    #[test]
    fn only_calls_for_work_with_files_are_allowed() {
        if !is_supported() {
            eprintln!("SKIPPED: this kernel has no seccomp filters");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("file");
        fs::write(&at, "x").unwrap();
        let path = std::ffi::CString::new(at.as_os_str().as_encoded_bytes()).unwrap();
        // Only the calling thread is confined.
        let confined = std::thread::spawn(move || {
            allow_files_only().unwrap();
            for (name, result) in forbidden(&path) {
                assert_eq!(result, Some(libc::ENOSYS), "{name}");
            }
            assert_eq!(fs::read(&at).unwrap(), b"x");
            fs::rename(&at, at.with_extension("new")).unwrap();
            let listed = Command::new("/bin/ls").arg(at.parent().unwrap()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&listed.stdout), "file.new\n", "{listed:?}");
            let inherited = std::thread::spawn(|| std::net::TcpListener::bind("127.0.0.1:0"));
            assert!(inherited.join().unwrap().is_err(), "threads inherit the filter");
        });
        confined.join().unwrap();
        std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    }
}
