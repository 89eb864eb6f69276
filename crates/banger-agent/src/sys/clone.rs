//! clone3(2) for a child that soon executes a program: as vfork(2), and into a cgroup.
//!
//! The child shares the agent's memory until it executes its program, as with posix_spawn(3): the
//! kernel copies no page tables, and no page is copied on write afterwards. Under emulation, and
//! with many sessions, this is most of what starting a program costs.

use std::convert::Infallible;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

use super::process::Spawned;

/// Flags of clone3(2), `linux/sched.h`.
#[cfg(target_arch = "x86_64")]
const VM: u64 = 0x100;
#[cfg(target_arch = "x86_64")]
const VFORK: u64 = 0x4000;
const PIDFD: u64 = 0x1000;
const INTO_CGROUP: u64 = 0x2_0000_0000;
const NEW_PID_AND_MOUNT: u64 = 0x2000_0000 | 0x2_0000;

/// Namespaces of a new process (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Its parent's.
    Inherited,
    /// A PID namespace whose process 1 it is, and a mount namespace.
    PidAndMount,
}

/// Size of the child's stack in bytes. It runs a few short functions and no recursion.
#[cfg(target_arch = "x86_64")]
const STACK: usize = 64 * 1024;

/// `struct clone_args` of `linux/sched.h`, as of Linux 5.7.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Runs `child` in a new process that begins in the cgroup, where one is given: moving a running
/// process there costs an RCU grace period, a new one begins there for nothing. Where the kernel
/// cannot do that, or the cgroup is gone, the child begins in its parent's.
///
/// `child` must end in execve(2) or _exit(2), make no other than raw system calls, neither allocate
/// nor panic, and leave alone what other threads use: it runs in this process' memory while they go
/// on. This thread waits until the program runs or the child has ended.
///
/// # Errors
/// As clone3(2).
pub fn clone_process(
    cgroup: Option<BorrowedFd<'_>>,
    namespaces: Namespaces,
    child: &mut dyn FnMut() -> Infallible,
) -> io::Result<Spawned> {
    if let Some(cgroup) = cgroup
        && let Ok(spawned) = clone_with(Some(cgroup), namespaces, child)
    {
        return Ok(spawned);
    }
    clone_with(None, namespaces, child)
}

#[expect(unsafe_code, reason = "no wrapper of clone3 exists")]
fn clone_with(
    cgroup: Option<BorrowedFd<'_>>,
    namespaces: Namespaces,
    child: &mut dyn FnMut() -> Infallible,
) -> io::Result<Spawned> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if namespaces == Namespaces::PidAndMount {
        args.flags |= NEW_PID_AND_MOUNT;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(u64::MAX);
    }
    // SAFETY: the structure and the place for the descriptor outlive the call; the caller keeps
    // the contract of `clone_process`.
    let pid = unsafe { clone3(&mut args, child) };
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EINVAL)));
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("clone3 returned no process id"))?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid, pidfd })
}

/// Calls the closure behind `child`, on the new process' stack.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "called from assembly with an untyped pointer")]
extern "C" fn enter(child: *mut &mut dyn FnMut() -> Infallible) -> ! {
    // SAFETY: `clone3` passes a pointer to its own variable, whose thread waits meanwhile.
    match unsafe { (*child)() } {}
}

/// clone3(2) with `CLONE_VM` and `CLONE_VFORK`; returns a process id or a negative error number.
///
/// # Safety
/// `args` must be valid for the system call, and `child` as [`clone_process`] says.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the child needs a stack of its own, which no function gives")]
unsafe fn clone3(args: &mut CloneArgs, mut child: &mut dyn FnMut() -> Infallible) -> isize {
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    args.flags |= VM | VFORK;
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = STACK as u64;
    let result: isize;
    // SAFETY: the child sees 0, begins on its own stack, whose end is aligned to 16 bytes as the
    // ABI asks before a call, and never returns. The parent goes on after the child has left this
    // memory; it sees the other values, and only the registers that a system call changes changed.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const *args,
            in("rsi") size_of::<CloneArgs>(),
            in("r8") enter as extern "C" fn(*mut &mut dyn FnMut() -> Infallible) -> !,
            in("r9") &raw mut child,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone3(2) as fork(2); returns a process id or a negative error number.
///
/// # Safety
/// `args` must be valid for the system call, and `child` as [`clone_process`] says.
#[cfg(not(target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "no wrapper of clone3 exists")]
unsafe fn clone3(args: &mut CloneArgs, child: &mut dyn FnMut() -> Infallible) -> isize {
    // SAFETY: without `CLONE_VM` and a stack of its own the child is a copy as after fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<CloneArgs>()) };
    match pid {
        0 => match child() {},
        -1 => -(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL) as isize),
        pid => pid as isize,
    }
}
