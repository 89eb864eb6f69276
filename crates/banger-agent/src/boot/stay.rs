//! Process 1 of a machine without an init of its own: runs the program, if the machine has one,
//! reaps, and ends the machine when asked, with the signals systemd takes (SIGRTMIN+4 poweroff,
//! SIGRTMIN+5 reboot).
//!
//! The machine ends with its program. A request to end sends the program its stop signal first, and
//! waits for it; the agent ends the machine shortly before the host's time limit.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use banger_agent_proto::PROGRAM_ENDED;
use banger_agent_proto::boot::{GuestConfig, Program, ProgramStart};
use banger_agent_proto::exec::ExitStatus;
use rustix::fs::{Gid, Mode, Uid, sync};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::system::{RebootCommand, reboot};

use crate::agent::exec::{self, Prepared};
use crate::agent::{power, program};
use crate::boot::uptime_ms;
use crate::sys::process::{Launch, spawn};
use crate::sys::signal::{self, SignalSet, Target};

/// How long processes have to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// How long after SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Time for the daemon to record that the machine runs, before the program starts. A program that
/// ends at once would otherwise look like a failed start.
const DAEMON_WAIT: Duration = Duration::from_secs(10);

/// Time for a client to start the program, before it starts without one.
pub const CLIENT_WAIT: Duration = Duration::from_secs(60);

/// Pause before looking again whether the program takes its stop signal.
const SIGNAL_PAUSE: Duration = Duration::from_millis(100);

/// Pause before the stop signal is repeated to an init of containers that may still start services.
const REPEAT_PAUSE: Duration = Duration::from_secs(2);

/// Time after the kernel's start in which such an init may lose a signal: s6-svscan passes it to a
/// service that does not run yet.
const INIT_BOOT_MS: u64 = 30_000;

/// The kernel's log. The console shows messages of level 3.
const KERNEL_LOG: &str = "/dev/kmsg";

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
            program::go_signal(),
            program::started_signal(),
            program::ended_signal(),
        ]))
    }
}

/// Is init until the machine ends: with its program, or when asked. Without a program the machine
/// runs on for its users.
pub fn run(config: &GuestConfig, requests: Requests) -> ! {
    let signals = match requests.0 {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("banger: cannot wait for signals: {error}");
            end_machine(RebootCommand::Restart)
        }
    };
    let mut main = Main { config, state: State::of(config.program.as_ref()) };
    loop {
        if let Some(event) = main.next(&signals) {
            main.handle(event, &signals);
        }
    }
}

/// What the program of the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is none.
    None,
    /// It is started at this time at the latest.
    Waiting(Instant),
    /// It runs.
    Running(Pid),
}

impl State {
    fn of(program: Option<&Program>) -> Self {
        let wait = match program.map(|program| program.start) {
            None => return Self::None,
            Some(ProgramStart::AfterBoot) => DAEMON_WAIT,
            Some(ProgramStart::WithClient) => CLIENT_WAIT,
        };
        Self::Waiting(Instant::now() + wait)
    }
}

/// What this init reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The program is to start, without a client.
    Start,
    /// A client has started it as this process.
    Started(Pid),
    /// It has ended with this exit code.
    Ended(u8),
    /// The machine is to end.
    End(RebootCommand),
}

struct Main<'a> {
    config: &'a GuestConfig,
    state: State,
}

impl Main<'_> {
    /// The next event, if the next signal is one.
    fn next(&self, signals: &SignalSet) -> Option<Event> {
        let State::Waiting(at) = self.state else {
            let (number, value) = signals.wait_value(Duration::from_secs(3600))?;
            return self.meaning(number, value);
        };
        let left = at.saturating_duration_since(Instant::now());
        match signals.wait_value(left) {
            Some((number, value)) => self.meaning(number, value),
            None => (at <= Instant::now()).then_some(Event::Start),
        }
    }

    fn meaning(&self, number: i32, value: i32) -> Option<Event> {
        let waits = |start| self.config.program.as_ref().is_some_and(|own| own.start == start);
        let restart = power::reboot_signal();
        if number == libc::SIGCHLD {
            return self.reap().map(Event::Ended);
        }
        if number == program::go_signal() {
            return waits(ProgramStart::AfterBoot).then_some(Event::Start);
        }
        if number == program::started_signal() {
            return Pid::from_raw(value).map(Event::Started);
        }
        if number == program::ended_signal() {
            return u8::try_from(value).ok().map(Event::Ended);
        }
        // Ctrl-Alt-Del arrives as SIGINT.
        let is_restart = number == restart || number == libc::SIGINT;
        let command = if is_restart { RebootCommand::Restart } else { RebootCommand::PowerOff };
        Some(Event::End(command))
    }

    fn handle(&mut self, event: Event, signals: &SignalSet) {
        match (event, self.state) {
            (Event::Start, State::Waiting(_)) => match start_alone(self.config) {
                Ok(pid) => self.state = State::Running(pid),
                Err(status) => over(status.shell_code(), signals),
            },
            (Event::Started(pid), State::Waiting(_)) => self.state = State::Running(pid),
            // Without a start before it: the program could not be started.
            (Event::Ended(code), State::Waiting(_) | State::Running(_)) => over(code, signals),
            (Event::End(command), State::Running(pid)) => match self.stopped(pid, signals) {
                Some(code) => {
                    report(code);
                    end_everything(None, signals, command)
                }
                None => end_everything(Some(pid), signals, command),
            },
            (Event::End(command), State::None | State::Waiting(_)) => {
                end_everything(None, signals, command)
            }
            _ => {}
        }
    }

    /// Sends the program its stop signal and waits until it has ended; none if the agent does not
    /// wait any longer, which sends SIGTERM then.
    fn stopped(&self, pid: Pid, signals: &SignalSet) -> Option<u8> {
        let mut send_at = Some(Instant::now());
        loop {
            if send_at.is_some_and(|at| at <= Instant::now()) {
                send_at = self.send_stop(pid).map(|pause| Instant::now() + pause);
            }
            let wait = send_at.map_or(Duration::from_secs(3600), |at| {
                at.saturating_duration_since(Instant::now())
            });
            let Some((number, value)) = signals.wait_value(wait) else { continue };
            match self.meaning(number, value) {
                Some(Event::Ended(code)) => return Some(code),
                Some(Event::End(_)) if [libc::SIGTERM, libc::SIGPWR].contains(&number) => {
                    return None;
                }
                _ => {}
            }
        }
    }

    /// Sends the program its stop signal, if that has an effect yet; the pause until it is to be
    /// sent again, none if it is not.
    fn send_stop(&self, pid: Pid) -> Option<Duration> {
        let own = self.config.program.as_ref();
        let stop = own.map_or(libc::SIGTERM, |program| i32::from(program.stop_signal));
        let status = status(pid);
        let is_init = is_namespaces_init(&status);
        if is_init && !handles(&status, stop) {
            return Some(SIGNAL_PAUSE);
        }
        // It may have ended.
        let _ = signal::send(Target::Process(pid), stop);
        (is_init && uptime_ms() < INIT_BOOT_MS).then_some(REPEAT_PAUSE)
    }

    /// Reaps all processes that have ended, since init is the parent of orphans; returns the exit
    /// code of the program, if it is among them.
    fn reap(&self) -> Option<u8> {
        let mut code = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self.state == State::Running(pid) {
                code = Some(code_of(status));
            }
        }
        code
    }
}

/// `/proc/PID/status` (proc(5)); empty if the process has ended.
fn status(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default()
}

/// Whether a process is process 1 of a PID namespace: `NSpid` has its id in each.
fn is_namespaces_init(status: &str) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.is_some_and(|ids| ids.split_whitespace().skip(1).last() == Some("1"))
}

/// Whether a process catches a signal, or blocks it to read it from a descriptor. The kernel
/// discards any other signal to process 1 of a PID namespace (pid_namespaces(7)), as while a
/// container's init starts.
fn handles(status: &str, number: i32) -> bool {
    ["SigBlk:", "SigCgt:"].iter().any(|mask| signal::is_in_mask(status, mask, number))
}

fn code_of(status: WaitStatus) -> u8 {
    let ended = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Exited { code: code as u8 },
        (None, signal) => ExitStatus::Signaled { signal: signal.unwrap_or(0) as u8 },
    };
    ended.shell_code()
}

/// Starts the program with the console as its output.
fn start_alone(config: &GuestConfig) -> Result<Pid, ExitStatus> {
    let not_started = |message: String| {
        eprintln!("banger: {message}");
        ExitStatus::NotStarted { code: exec::CANNOT_EXECUTE, message }
    };
    let Some(own) = &config.program else {
        return Err(not_started("there is no program".to_owned()));
    };
    let request = program::request(own);
    let prepared = program::prepare(own, &request, &config.env, || None).map_err(not_started)?;
    let Prepared { program, setup, .. } = prepared;
    let stdio = console(setup.uid, setup.gid)
        .map_err(|error| not_started(format!("cannot open the console: {error}")))?;
    match spawn(Launch { program, stdio, setup, cgroup: None }) {
        Ok(process) => Ok(process.pid),
        Err((stage, error)) => {
            let status = exec::not_started(stage, &error, &request);
            if let ExitStatus::NotStarted { message, .. } = &status {
                eprintln!("banger: {message}");
            }
            Err(status)
        }
    }
}

/// No input, and the console as output. It becomes the user's: programs reopen `/dev/stdout`.
fn console(uid: Uid, gid: Gid) -> io::Result<[OwnedFd; 3]> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    if !uid.is_root() {
        // A console that is no device has no owner to change.
        let _ = rustix::fs::fchown(&stdout, Some(uid), Some(gid));
        let _ = rustix::fs::fchmod(&stdout, Mode::from_raw_mode(0o620));
    }
    Ok([
        File::open("/dev/null")?.into(),
        stdout.as_fd().try_clone_to_owned()?,
        stderr.as_fd().try_clone_to_owned()?,
    ])
}

/// Ends the machine after its program.
fn over(code: u8, signals: &SignalSet) -> ! {
    report(code);
    end_everything(None, signals, RebootCommand::PowerOff)
}

/// Reports the exit code on the console, where the host looks for it. Through the kernel's log,
/// since its lines are not mixed with others.
fn report(code: u8) {
    // What the program has written comes before it; a console that is no terminal has no queue.
    let _ = rustix::termios::tcdrain(io::stdout());
    let written = File::options()
        .write(true)
        .open(KERNEL_LOG)
        .and_then(|mut log| log.write_all(format!("<3>{PROGRAM_ENDED}{code}\n").as_bytes()));
    if written.is_err() {
        eprintln!("{PROGRAM_ENDED}{code}");
    }
}

/// Ends all processes and then the machine; reports the exit code of the program, if it runs.
fn end_everything(program: Option<Pid>, signals: &SignalSet, command: RebootCommand) -> ! {
    // The agent reads this name to tell the host what is coming.
    let name = if command == RebootCommand::Restart { c"reboot" } else { c"poweroff" };
    let _ = rustix::thread::set_name(name);
    for (number, grace) in [(libc::SIGTERM, TERM_GRACE), (libc::SIGKILL, KILL_GRACE)] {
        // ESRCH: nothing is left.
        if signal::send(Target::Everyone, number).is_ok() && all_gone(program, signals, grace) {
            break;
        }
    }
    end_machine(command)
}

/// Reaps until no child is left; false when `grace` is over first.
fn all_gone(program: Option<Pid>, signals: &SignalSet, grace: Duration) -> bool {
    let deadline = Instant::now() + grace;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == program => report(code_of(status)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(start: Option<ProgramStart>) -> GuestConfig {
        let mut config: GuestConfig = serde_json::from_value(serde_json::json!({
            "protocol": 1, "hostname": "web", "machine_id": "0".repeat(32),
            "root": { "disk": { "index": 0 }, "layer": null }, "work": null, "modules": null,
            "network": null, "files": [], "env": {}, "clock_unix_ms": 0, "entropy": "",
        }))
        .unwrap();
        config.program = start.map(|start| Program {
            argv: vec!["true".into()],
            env: Vec::new(),
            cwd: None,
            user: None,
            stop_signal: 3,
            start,
        });
        config
    }

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn signals_are_events() {
        use ProgramStart::{AfterBoot, WithClient};
        let meaning = |start, number, value| {
            let config = config(start);
            let main = Main { config: &config, state: State::of(config.program.as_ref()) };
            main.meaning(number, value)
        };
        let go = program::go_signal();
        assert_eq!(meaning(Some(AfterBoot), go, 0), Some(Event::Start));
        assert_eq!(meaning(Some(WithClient), go, 0), None, "it waits for the client");
        assert_eq!(meaning(None, go, 0), None);
        let started = program::started_signal();
        assert_eq!(meaning(Some(WithClient), started, 77), Some(Event::Started(pid(77))));
        let ended = program::ended_signal();
        assert_eq!(meaning(Some(WithClient), ended, 143), Some(Event::Ended(143)));
        assert_eq!(meaning(Some(WithClient), ended, 256), None);
        for (number, command) in [
            (power::poweroff_signal(), RebootCommand::PowerOff),
            (libc::SIGTERM, RebootCommand::PowerOff),
            (power::reboot_signal(), RebootCommand::Restart),
            (libc::SIGINT, RebootCommand::Restart),
        ] {
            assert_eq!(meaning(None, number, 0), Some(Event::End(command)), "{number}");
        }
    }

    #[test]
    fn a_namespaces_init_takes_only_signals_that_it_handles() {
        let status = |ids: &str| {
            format!("NSpid:\t{ids}\nSigBlk:\t0000000000000001\nSigCgt:\t0000000000004000\n")
        };
        assert!(is_namespaces_init(&status("97\t1")));
        assert!(!is_namespaces_init(&status("97\t5")) && !is_namespaces_init(&status("1")));
        assert!(!is_namespaces_init(""));
        let caught_and_blocked = status("97\t1");
        assert!(handles(&caught_and_blocked, 15) && handles(&caught_and_blocked, 1));
        assert!([0, 3, 200].iter().all(|number| !handles(&caught_and_blocked, *number)));
    }

    #[test]
    fn a_client_has_more_time_than_the_daemon() {
        assert_eq!(State::of(None), State::None);
        let at = |start| match State::of(config(Some(start)).program.as_ref()) {
            State::Waiting(at) => at,
            other => panic!("{other:?}"),
        };
        assert!(at(ProgramStart::WithClient) > at(ProgramStart::AfterBoot));
    }

    #[test]
    fn a_program_that_cannot_start_has_the_code_of_a_shell() {
        let mut config = config(Some(ProgramStart::AfterBoot));
        let code = |config: &GuestConfig| start_alone(config).unwrap_err().shell_code();
        config.program.as_mut().unwrap().argv = vec!["no-such-program".into()];
        assert_eq!(code(&config), 127);
        config.program.as_mut().unwrap().argv = vec!["/etc/passwd".into()];
        assert_eq!(code(&config), 126);
        config.program.as_mut().unwrap().user = Some("no-such-user".into());
        assert_eq!(code(&config), 126);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "waited for by its id, as init does")]
    fn the_end_of_a_program_is_a_code_of_a_shell() {
        for (script, code) in [("exit 3", 3), ("kill -9 $$", 137)] {
            let child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let ended =
                rustix::process::waitpid(Some(Pid::from_child(&child)), WaitOptions::empty());
            assert_eq!(code_of(ended.unwrap().unwrap().1), code, "{script}");
        }
    }
}
