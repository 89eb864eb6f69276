//! Process 1 of an image without an init: runs the entry point, reaps, and ends the machine when
//! asked, with the signals systemd takes (SIGRTMIN+4 poweroff, SIGRTMIN+5 reboot).

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use banger_agent_proto::boot::GuestConfig;
use rustix::fs::{Gid, Uid, sync};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::agent::{lookup, power};
use crate::sys::process::{ChildSetup, Launch, Program, Terminal, spawn};
use crate::sys::signal::{self, SignalSet, Target};

/// How long processes have to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// How long after SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// The signals that this init waits for.
pub struct Requests(io::Result<SignalSet>);

impl Requests {
    /// Holds the signals back, so that none is lost that comes before [`run`] waits for them. They
    /// stay so in processes made from here on.
    pub fn hold_back() -> Self {
        Self(SignalSet::block(&[
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGPWR,
            power::poweroff_signal(),
            power::reboot_signal(),
        ]))
    }
}

/// Is init until the machine ends.
///
/// The machine keeps running when the entry point ends, so that users can inspect it.
pub fn run(config: &GuestConfig, requests: Requests) -> ! {
    let restart = power::reboot_signal();
    let signals = match requests.0 {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("banger: cannot wait for signals: {error}");
            end_machine(RebootCommand::Restart)
        }
    };
    start_entry_point(config);
    loop {
        match signals.wait() {
            libc::SIGCHLD => reap(),
            // Ctrl-Alt-Del arrives as SIGINT.
            number if number == restart || number == libc::SIGINT => {
                end_everything(&signals, RebootCommand::Restart)
            }
            _ => end_everything(&signals, RebootCommand::PowerOff),
        }
    }
}

fn start_entry_point(config: &GuestConfig) {
    let [program, ..] = config.entrypoint.as_slice() else { return };
    if let Err(error) = entry_point(config) {
        eprintln!("banger: cannot start the entry point `{program}`: {error}");
    }
}

fn entry_point(config: &GuestConfig) -> io::Result<()> {
    let mut env = config.env.clone();
    env.entry("HOME".to_owned()).or_insert_with(|| "/root".to_owned());
    let path = env.entry("PATH".to_owned()).or_insert_with(lookup::default_path).clone();
    let words = |words: Vec<String>| -> io::Result<Vec<CString>> {
        Ok(words.into_iter().map(CString::new).collect::<Result<_, _>>()?)
    };
    let name = config.entrypoint.first().map(String::as_str).unwrap_or_default();
    let program = Program {
        paths: lookup::candidates(OsStr::new(name), OsStr::new(&path)),
        argv: words(config.entrypoint.clone())?,
        env: words(env.iter().map(|(name, value)| format!("{name}={value}")).collect())?,
    };
    let setup = ChildSetup {
        uid: Uid::ROOT,
        gid: Gid::ROOT,
        groups: vec![Gid::ROOT],
        cwd: c"/".to_owned(),
        terminal: Terminal::None,
    };
    let stdio = [
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ];
    spawn(Launch { program, stdio, setup, cgroup: None }).map(drop).map_err(|(_, error)| error)
}

/// Reaps all processes that have ended; init is the parent of orphans.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn end_everything(signals: &SignalSet, command: RebootCommand) -> ! {
    // The agent reads this name to tell the host what is coming.
    let name = if command == RebootCommand::Restart { c"reboot" } else { c"poweroff" };
    let _ = rustix::thread::set_name(name);
    for (number, grace) in [(libc::SIGTERM, TERM_GRACE), (libc::SIGKILL, KILL_GRACE)] {
        // ESRCH: nothing is left.
        if signal::send(Target::Everyone, number).is_ok() && all_gone(signals, grace) {
            break;
        }
    }
    end_machine(command)
}

/// Reaps until no child is left; false when `grace` is over first.
fn all_gone(signals: &SignalSet, grace: Duration) -> bool {
    let deadline = Instant::now() + grace;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Err(Errno::CHILD) => return true,
            _ => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                signals.wait_timeout(left);
            }
        }
    }
}

/// Writes what is to be written and ends the machine.
pub fn end_machine(command: RebootCommand) -> ! {
    sync();
    // The work disk closes cleanly; the root is in use by this very program, so read-only.
    let _ = unmount("/root", UnmountFlags::empty());
    let _ = mount_remount("/", MountFlags::RDONLY, c"");
    sync();
    let error = reboot(command);
    eprintln!("banger: cannot end the machine: {error:?}");
    std::process::exit(1)
}
