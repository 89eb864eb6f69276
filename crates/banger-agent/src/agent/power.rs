//! Going down: how to ask this image's init for it, and what an init that goes down is up to.

use std::fs;
use std::process::{Command, Stdio};

use banger_agent_proto::events::PowerMode;
use rustix::process::Pid;

use crate::fault::{Context, Fault};
use crate::sys::signal::{self, Target, realtime};

/// What systemd and our own init take for "power off" (`SIGRTMIN+4`, systemd(1)).
pub fn poweroff_signal() -> i32 {
    realtime(4)
}

/// What systemd and our own init take for "reboot" (`SIGRTMIN+5`).
pub fn reboot_signal() -> i32 {
    realtime(5)
}

/// Where the programs `poweroff` and `reboot` are looked for.
const FOLDERS: [&str; 4] = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"];

/// How init is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It takes the real-time signals.
    Signal,
    /// It brings programs that know how to talk to it.
    Program,
}

/// Asks init to end the guest. Returns when it has been asked.
///
/// # Errors
/// No way to ask.
pub fn go_down(mode: PowerMode) -> Result<(), Fault> {
    let (number, name) = match mode {
        PowerMode::Poweroff => (poweroff_signal(), "poweroff"),
        PowerMode::Reboot => (reboot_signal(), "reboot"),
        PowerMode::Unknown => return Err(Fault::new("power off or reboot must be chosen")),
    };
    // Whatever init does, and even if the host loses patience, what was written is on disk.
    rustix::fs::sync();
    // An init that has only just been executed neither handles signals nor answers its programs
    // yet.
    let mut asked = ask(number, name);
    for _ in 0..EARLY_TRIES {
        if asked.is_ok() {
            break;
        }
        std::thread::sleep(EARLY_PAUSE);
        asked = ask(number, name);
    }
    asked
}

fn ask(number: i32, name: &str) -> Result<(), Fault> {
    match way(&read("/proc/1/comm"), &init_program()) {
        Way::Signal if hears(&read("/proc/1/status"), number) => signal_init(number),
        Way::Signal => Err(Fault::new("init does not take signals yet")),
        Way::Program => run_program(name),
    }
}

/// The file that process 1 executes: systemd is started as `/sbin/init` and keeps that name for a
/// while.
fn init_program() -> String {
    fs::read_link("/proc/1/exe").map(|path| path.display().to_string()).unwrap_or_default()
}

fn signal_init(number: i32) -> Result<(), Fault> {
    signal::send(Target::Process(Pid::INIT), number).context(|| "cannot signal init".to_owned())
}

/// How often, and how long between, an init that does not listen yet is asked again: a minute in
/// all.
const EARLY_TRIES: u32 = 600;
const EARLY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Whether a process catches this signal, or holds it back to read it from a descriptor
/// (signalfd(2)): `SigBlk` and `SigCgt` of proc(5), hexadecimal masks, signal 1 in the lowest bit.
fn hears(status: &str, number: i32) -> bool {
    let bit = u32::try_from(number - 1).ok().and_then(|place| 1u64.checked_shl(place));
    ["SigBlk:", "SigCgt:"].iter().any(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
    })
}

fn way(comm: &str, program: &str) -> Way {
    if program.ends_with("/systemd") {
        return Way::Signal;
    }
    match comm.trim() {
        // Our own init keeps the name of the file it was started from: /init.
        "init" if is_ours() => Way::Signal,
        _ => Way::Program,
    }
}

/// Whether process 1 is this very program.
fn is_ours() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let ours = identity("/proc/self/exe");
    ours.is_some() && identity("/proc/1/exe") == ours
}

fn run_program(name: &str) -> Result<(), Fault> {
    let path = FOLDERS
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| fs::exists(path).unwrap_or(false));
    let mut command = match path {
        Some(path) => Command::new(path),
        None => {
            let mut busybox = Command::new("busybox");
            busybox.arg(name);
            busybox
        }
    };
    let status = command
        .env("PATH", super::exec::DEFAULT_PATH)
        .stdin(Stdio::null())
        .status()
        .context(|| format!("cannot run the guest's `{name}`"))?;
    if status.success() { Ok(()) } else { Err(Fault::new(format!("`{name}` failed: {status}"))) }
}

/// What the guest is up to, now that init has told the agent to end.
pub fn coming(requested: Option<PowerMode>) -> PowerMode {
    interpret(&read("/proc/1/cmdline"), &read("/proc/1/comm"), requested)
}

fn read(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// systemd becomes `systemd-shutdown <mode>`, sysvinit shows its run level in its arguments, our
/// own init its intention in its name; of the others only the host's own request is known.
fn interpret(cmdline: &str, comm: &str, requested: Option<PowerMode>) -> PowerMode {
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
    fn init_tells_what_it_is_up_to() {
        let table = [
            ("/usr/lib/systemd/systemd-shutdown\0poweroff\0--log-level\x006\0", "systemd-shutdow"),
            ("/lib/systemd/systemd-shutdown\0halt\0", "systemd-shutdow"),
            ("init [0]  \0\0\0", "init"),
            ("/init\0", "poweroff"),
        ];
        for (cmdline, comm) in table {
            assert_eq!(interpret(cmdline, comm, None), PowerMode::Poweroff, "{cmdline}");
        }
        let table = [
            ("/usr/lib/systemd/systemd-shutdown\0reboot\0", "systemd-shutdow"),
            ("init [6]", "init"),
            ("/init\0", "reboot"),
        ];
        for (cmdline, comm) in table {
            let requested = Some(PowerMode::Poweroff);
            assert_eq!(interpret(cmdline, comm, requested), PowerMode::Reboot, "{cmdline}");
        }
    }

    #[test]
    fn a_signal_is_heard_when_it_is_caught_or_held_back() {
        let status = "Name:\tsystemd\nSigBlk:\t0000000000000001\nSigCgt:\t0000002000000000\n";
        assert!(hears(status, 1) && hears(status, 38));
        assert!(!hears(status, 2) && !hears("", 1) && !hears(status, 0));
    }

    #[test]
    fn without_a_sign_the_request_counts() {
        assert_eq!(interpret("/sbin/init\0", "init", None), PowerMode::Unknown);
        assert_eq!(interpret("/sbin/init\0", "init", Some(PowerMode::Reboot)), PowerMode::Reboot);
        assert_eq!(interpret("", "", None), PowerMode::Unknown);
    }

    #[test]
    fn only_known_inits_are_signalled() {
        assert_eq!(way("init\n", "/usr/lib/systemd/systemd"), Way::Signal);
        assert_eq!(way("runit\n", "/sbin/runit"), Way::Program);
        assert_eq!(way("busybox", "/bin/busybox"), Way::Program);
        assert!(go_down(PowerMode::Unknown).is_err());
    }
}
