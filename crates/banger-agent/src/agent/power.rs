//! Shutdown of the guest: requests it from the image's init, and detects the mode of a shutdown
//! that init begins itself.
//!
//! An init that still boots may ignore a request, so the request is repeated until the guest ends.
//! If init takes no requests, or does not end the guest within the host's grace period, the agent
//! ends all processes and then the machine.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use banger_agent_proto::events::PowerMode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::system::RebootCommand;

use super::lookup;
use crate::boot::{INIT_PATHS, end_machine, uptime_ms};
use crate::fault::{Context, Fault};
use crate::sys::signal::{self, Target, realtime};

/// Signal for power off, of systemd and of our own init (`SIGRTMIN+4`, systemd(1)).
pub fn poweroff_signal() -> i32 {
    realtime(4)
}

/// Signal for reboot, of systemd and of our own init (`SIGRTMIN+5`).
pub fn reboot_signal() -> i32 {
    realtime(5)
}

/// A program that requests a shutdown, with its arguments for power off and reboot.
type ShutdownProgram = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Programs in order of preference; the first one that the image has is used.
const PROGRAMS: [ShutdownProgram; 9] = [
    ("poweroff", &[], &[]),
    ("reboot", &[], &[]),
    ("openrc-shutdown", &["-p", "now"], &["-r", "now"]),
    ("runit-init", &["0"], &["6"]),
    ("s6-linux-init-hpr", &["-p"], &["-r"]),
    ("dinitctl", &["shutdown", "poweroff"], &["shutdown", "reboot"]),
    ("shutdown", &["-h", "now"], &["-r", "now"]),
    ("halt", &["-p"], &["--reboot"]),
    ("busybox", &["poweroff"], &["reboot"]),
];

/// The one of [`PROGRAMS`] that belongs to an init, by the name of the init's file: an image with
/// several inits has a `poweroff` of one of them.
const OWN_PROGRAMS: [(&str, &str); 6] = [
    ("openrc-init", "openrc-shutdown"),
    ("runit", "runit-init"),
    ("runit-init", "runit-init"),
    ("dinit", "dinitctl"),
    ("s6-svscan", "s6-linux-init-hpr"),
    ("busybox", "busybox"),
];

/// Time that such a program may take.
const PROGRAM_MAX: Duration = Duration::from_secs(10);

/// What an init of the image has failed to do.
const OTHER_INIT_LATE: &str = "the image's init has not ended the machine";

/// Time for our own init to report how its program has ended, and to end the machine itself.
const REPORT_GRACE: Duration = Duration::from_millis(500);

/// Pause before a request is repeated: init may lose one that arrives while it boots, and
/// repetition is harmless.
const REPEAT_PAUSE: Duration = Duration::from_secs(5);

/// Pause before a request is repeated to an init that is not ready for requests.
const EARLY_PAUSE: Duration = Duration::from_millis(100);

/// Time after the kernel's start within which a script as init may execute the real init.
const SCRIPT_BOOT_MS: u64 = 20_000;

/// Time before the host's deadline at which the agent stops waiting for init; at most half the
/// grace period.
const FORCE_MARGIN: Duration = Duration::from_secs(8);

/// Longest time that processes have to end after SIGTERM, when init is not waited for.
const TERM_GRACE: Duration = Duration::from_secs(4);

/// Set once the agent ends the machine itself; the agent must not exit before that.
static IS_FORCING: AtomicBool = AtomicBool::new(false);

/// A request of the host.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Power off or reboot.
    pub mode: PowerMode,
    /// When the agent ends the machine itself, if init has not; none = never.
    pub deadline: Option<Instant>,
    /// Time that processes have to end after SIGTERM then.
    term_grace: Duration,
}

impl Request {
    /// A request after which the host ends the VMM in `grace`.
    pub fn new(mode: PowerMode, grace: Option<Duration>) -> Self {
        let margin = grace.map_or(FORCE_MARGIN, |grace| FORCE_MARGIN.min(grace / 2));
        let wait = grace.map(|grace| grace.saturating_sub(margin));
        Self {
            mode,
            deadline: wait.and_then(|wait| Instant::now().checked_add(wait)),
            term_grace: TERM_GRACE.min(margin.saturating_sub(2 * REPORT_GRACE)),
        }
    }
}

/// Requests the shutdown from init until the guest ends; a later request replaces an earlier one.
pub fn serve(requests: &Receiver<Request>) {
    let Ok(mut request) = requests.recv() else { return };
    // Written data is on disk even if the host kills the VMM later.
    rustix::fs::sync();
    loop {
        let pause = match request_shutdown(request.mode) {
            Ok(RequestOutcome::Accepted) => REPEAT_PAUSE,
            Ok(RequestOutcome::NotReady) => EARLY_PAUSE,
            Ok(RequestOutcome::Unsupported) => force(request),
            Err(fault) => {
                eprintln!("banger: {}", fault.chain());
                REPEAT_PAUSE
            }
        };
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        if request.deadline.is_some_and(|deadline| left(deadline).is_zero()) {
            let who = if is_ours() { "the program has not ended" } else { OTHER_INIT_LATE };
            eprintln!("banger: {who} in time");
            force(request);
        }
        let pause = request.deadline.map_or(pause, |deadline| pause.min(left(deadline)));
        match requests.recv_timeout(pause) {
            Ok(later) => request = later,
            Err(RecvTimeoutError::Timeout) => {}
            // Only if the agent itself is being taken down.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(pause),
        }
    }
}

/// Outcome of one request to init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    /// Init accepted the request.
    Accepted,
    /// Init is not ready for requests.
    NotReady,
    /// Init takes no requests.
    Unsupported,
}

/// How a shutdown is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShutdownMethod {
    /// By signal: init is this program, which blocks the signals before the agent starts.
    AgentSignal,
    /// By signal: systemd, once it reads real-time signals.
    SystemdSignal,
    /// By a program of the image.
    Program,
    /// Not at all: init is a script.
    Script,
}

fn request_shutdown(mode: PowerMode) -> Result<RequestOutcome, Fault> {
    let number = match mode {
        PowerMode::Reboot => reboot_signal(),
        PowerMode::Poweroff | PowerMode::Unknown => poweroff_signal(),
    };
    match shutdown_method(&init_program(), &read("/proc/1/cmdline"), is_ours()) {
        ShutdownMethod::AgentSignal => signal_init(number),
        ShutdownMethod::SystemdSignal if is_waited_for(&read("/proc/1/status"), number) => {
            signal_init(number)
        }
        ShutdownMethod::SystemdSignal => Ok(RequestOutcome::NotReady),
        ShutdownMethod::Program => run_program(mode),
        ShutdownMethod::Script if uptime_ms() < SCRIPT_BOOT_MS => Ok(RequestOutcome::NotReady),
        ShutdownMethod::Script => Ok(RequestOutcome::Unsupported),
    }
}

/// The file that process 1 executes: systemd is started as `/sbin/init` and keeps that name for a
/// while.
fn init_program() -> String {
    fs::read_link("/proc/1/exe").map(|path| path.display().to_string()).unwrap_or_default()
}

fn signal_init(number: i32) -> Result<RequestOutcome, Fault> {
    signal::send(Target::Process(Pid::INIT), number)
        .map(|()| RequestOutcome::Accepted)
        .context(|| "cannot signal init".to_owned())
}

/// Whether systemd reads this signal: it holds it back (`SigBlk` of proc(5)) and reads it from a
/// descriptor (signalfd(2)). This does not hold for
/// processes that wait in sigtimedwait(2): the kernel takes what they wait for out of the mask.
fn is_waited_for(status: &str, number: i32) -> bool {
    signal::is_in_mask(status, "SigBlk:", number)
}

fn shutdown_method(program: &str, cmdline: &str, is_ours: bool) -> ShutdownMethod {
    if is_ours {
        return ShutdownMethod::AgentSignal;
    }
    if program.ends_with("/systemd") {
        return ShutdownMethod::SystemdSignal;
    }
    // The kernel executes a script as its interpreter, an option at most, and the script's path.
    let mut words = cmdline.split('\0').skip(1).take(2);
    if words.any(|word| INIT_PATHS.contains(&word)) {
        ShutdownMethod::Script
    } else {
        ShutdownMethod::Program
    }
}

/// Whether process 1 is this very program.
fn is_ours() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let ours = identity("/proc/self/exe");
    ours.is_some() && identity("/proc/1/exe") == ours
}

/// [`PROGRAMS`], the init's own first.
fn programs(init: &str) -> impl Iterator<Item = ShutdownProgram> {
    let file = init.rsplit('/').next().unwrap_or_default();
    let own = OWN_PROGRAMS.iter().find(|(init, _)| *init == file).map(|(_, program)| *program);
    let is_own = move |program: &ShutdownProgram| Some(program.0) == own;
    let others = PROGRAMS.into_iter().filter(move |program| !is_own(program));
    PROGRAMS.into_iter().filter(is_own).chain(others)
}

/// Runs the first program that the image has.
fn run_program(mode: PowerMode) -> Result<RequestOutcome, Fault> {
    let path = lookup::default_path();
    for (name, poweroff, reboot) in programs(&init_program()) {
        // Programs named `reboot` are used for a reboot only.
        let (is_poweroff, arguments) = match mode {
            PowerMode::Reboot => (false, reboot),
            PowerMode::Poweroff | PowerMode::Unknown => (true, poweroff),
        };
        let other = if is_poweroff { "reboot" } else { "poweroff" };
        let mut candidates = lookup::candidates(OsStr::new(name), OsStr::new(&path));
        if name == other || !lookup::skip_missing(&mut candidates) {
            continue;
        }
        let what = || format!("cannot run the guest's `{name}`");
        let mut command = Command::new(name);
        command.args(arguments).env("PATH", &path).stdin(Stdio::null());
        return match run_bounded(command).context(what)? {
            Some(status) if status.success() => Ok(RequestOutcome::Accepted),
            // An init that still boots may not answer its own program.
            Some(_) | None => Ok(RequestOutcome::NotReady),
        };
    }
    Ok(RequestOutcome::Unsupported)
}

/// Runs a program to its end, for at most [`PROGRAM_MAX`]; `None` when it was killed.
fn run_bounded(mut command: Command) -> std::io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: PROGRAM_MAX.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))?;
    if ready == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

/// Ends all processes, and then the machine.
fn force(request: Request) -> ! {
    IS_FORCING.store(true, Ordering::Release);
    eprintln!("banger: the agent ends the machine");
    for (number, grace) in [(libc::SIGTERM, request.term_grace), (libc::SIGKILL, Duration::ZERO)] {
        // Init as well: a script may have set a trap. ESRCH: nothing is left.
        let _ = signal::send(Target::Process(Pid::INIT), libc::SIGTERM);
        let _ = signal::send(Target::Everyone, number);
        let deadline = Instant::now() + grace;
        while others_run() && Instant::now() < deadline {
            std::thread::sleep(EARLY_PAUSE / 2);
        }
    }
    if is_ours() {
        std::thread::sleep(REPORT_GRACE);
    }
    end_machine(match request.mode {
        PowerMode::Reboot => RebootCommand::Restart,
        PowerMode::Poweroff | PowerMode::Unknown => RebootCommand::PowerOff,
    })
}

/// Whether there are processes but init, the kernel's threads, this one and its parent.
fn others_run() -> bool {
    let ours = [Some(Pid::INIT), Some(rustix::process::getpid()), rustix::process::getppid()];
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).any(|pid: i32| {
        // A kernel thread and a zombie have no command line.
        !ours.contains(&Pid::from_raw(pid)) && !read(&format!("/proc/{pid}/cmdline")).is_empty()
    })
}

/// Whether the agent is ending the machine itself.
pub fn is_forcing() -> bool {
    IS_FORCING.load(Ordering::Acquire)
}

/// Whether a SIGTERM to the agent belongs to a shutdown or was sent by another program of the
/// guest. Only systemd and our own init show that they shut down; of other inits each SIGTERM
/// counts.
pub fn is_ending(requested: Option<PowerMode>) -> bool {
    let comm = read("/proc/1/comm");
    requested.is_some() || shows_end(&init_program(), &comm, is_ours())
}

fn shows_end(program: &str, comm: &str, is_ours: bool) -> bool {
    if is_ours {
        return ["poweroff", "reboot"].contains(&comm.trim());
    }
    // systemd executes systemd-shutdown, which sends the signal.
    !program.ends_with("/systemd")
}

/// Mode of the shutdown in which init has terminated the agent.
pub fn shutdown_mode(requested: Option<PowerMode>) -> PowerMode {
    mode_of(&read("/proc/1/cmdline"), &read("/proc/1/comm"), requested)
}

fn read(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// systemd becomes `systemd-shutdown <mode>`, sysvinit shows its run level in its arguments, our
/// own init the mode in its name; for other inits the mode is that of the host's request.
fn mode_of(cmdline: &str, comm: &str, requested: Option<PowerMode>) -> PowerMode {
    let mut words = cmdline.split('\0').flat_map(|word| word.split(' ')).filter(|w| !w.is_empty());
    let program = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let shown = if program.ends_with("systemd-shutdown") {
        words.iter().find_map(|word| match *word {
            "poweroff" | "halt" => Some(PowerMode::Poweroff),
            "reboot" | "kexec" | "soft-reboot" => Some(PowerMode::Reboot),
            _ => None,
        })
    } else {
        match (comm.trim(), words.first()) {
            ("poweroff", _) | (_, Some(&"[0]")) => Some(PowerMode::Poweroff),
            ("reboot", _) | (_, Some(&"[6]")) => Some(PowerMode::Reboot),
            _ => None,
        }
    };
    shown.or(requested).unwrap_or(PowerMode::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_init_is_detected() {
        let table = [
            ("/usr/lib/systemd/systemd-shutdown\0poweroff\0--log-level\x006\0", "systemd-shutdow"),
            ("/lib/systemd/systemd-shutdown\0halt\0", "systemd-shutdow"),
            ("init [0]  \0\0\0", "init"),
            ("/init\0", "poweroff"),
        ];
        for (cmdline, comm) in table {
            assert_eq!(mode_of(cmdline, comm, None), PowerMode::Poweroff, "{cmdline}");
        }
        let table = [
            ("/usr/lib/systemd/systemd-shutdown\0reboot\0", "systemd-shutdow"),
            ("init [6]", "init"),
            ("/init\0", "reboot"),
        ];
        for (cmdline, comm) in table {
            let requested = Some(PowerMode::Poweroff);
            assert_eq!(mode_of(cmdline, comm, requested), PowerMode::Reboot, "{cmdline}");
        }
    }

    #[test]
    fn systemd_reads_a_signal_once_it_holds_it_back() {
        let status = "Name:\tsystemd\nSigBlk:\t0000002000000001\nSigCgt:\t0000000000000002\n";
        assert!(is_waited_for(status, 1) && is_waited_for(status, 38));
        assert!(!is_waited_for(status, 2) && !is_waited_for("", 1) && !is_waited_for(status, 0));
    }

    #[test]
    fn without_a_visible_mode_the_requested_mode_counts() {
        assert_eq!(mode_of("/sbin/init\0", "init", None), PowerMode::Unknown);
        assert_eq!(mode_of("/sbin/init\0", "init", Some(PowerMode::Reboot)), PowerMode::Reboot);
        assert_eq!(mode_of("", "", None), PowerMode::Unknown);
    }

    #[test]
    fn the_inits_own_program_is_used_first() {
        let first = |init: &str| programs(init).next().map(|(name, ..)| name);
        for (init, program) in [
            ("/usr/sbin/openrc-init", "openrc-shutdown"),
            ("/usr/sbin/runit", "runit-init"),
            ("/usr/bin/busybox", "busybox"),
            ("/usr/sbin/init", "poweroff"),
            ("", "poweroff"),
        ] {
            assert_eq!(first(init), Some(program), "{init}");
            assert_eq!(programs(init).count(), PROGRAMS.len(), "{init}");
        }
    }

    #[test]
    fn each_init_has_a_shutdown_method() {
        let table = [
            ("/usr/lib/systemd/systemd", "/sbin/init\0", ShutdownMethod::SystemdSignal),
            ("/sbin/runit", "runit\0", ShutdownMethod::Program),
            ("/bin/busybox", "/sbin/init\0", ShutdownMethod::Program),
            ("/sbin/init", "init [2]\0", ShutdownMethod::Program),
            ("/bin/busybox", "/bin/sh\0/sbin/init\0", ShutdownMethod::Script),
            ("/bin/bash", "/bin/bash\0-e\0/sbin/init\0", ShutdownMethod::Script),
            ("/bin/sh", "/bin/sh\0/opt/run\0", ShutdownMethod::Program),
        ];
        for (program, cmdline, expected) in table {
            assert_eq!(shutdown_method(program, cmdline, false), expected, "{program} {cmdline}");
            assert_eq!(shutdown_method(program, cmdline, true), ShutdownMethod::AgentSignal);
        }
    }

    #[test]
    fn a_signal_alone_ends_no_agent_under_systemd_or_our_own_init() {
        assert!(!shows_end("/usr/lib/systemd/systemd", "systemd\n", false));
        assert!(shows_end("/usr/lib/systemd/systemd-shutdown", "systemd-shutdow\n", false));
        assert!(!shows_end("/init", "init\n", true));
        assert!(shows_end("/init", "poweroff\n", true));
        assert!(shows_end("/bin/busybox", "init\n", false));
    }

    #[test]
    fn the_agent_acts_before_the_host_does() {
        let left = |grace: u64| {
            let request = Request::new(PowerMode::Poweroff, Some(Duration::from_secs(grace)));
            let left = request.deadline.unwrap().saturating_duration_since(Instant::now());
            left.as_millis().div_ceil(1000)
        };
        assert_eq!((left(90), left(10), left(0)), (82, 5, 0));
        let term = |grace: u64| {
            Request::new(PowerMode::Poweroff, Some(Duration::from_secs(grace))).term_grace
        };
        // What is left is for the report of the program's end.
        assert_eq!([90, 10, 6, 1].map(term), [4, 4, 2, 0].map(Duration::from_secs));
        assert!(Request::new(PowerMode::Reboot, None).deadline.is_none());
        assert!(Request::new(PowerMode::Reboot, Some(Duration::MAX)).deadline.is_none());
    }

    #[test]
    fn a_program_that_ends_is_waited_for() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 3"]);
        assert_eq!(run_bounded(command).unwrap().unwrap().code(), Some(3));
    }
}
