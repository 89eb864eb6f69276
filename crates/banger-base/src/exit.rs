//! How a run of a VM ended, as its shim records it, and the state of a run that another daemon
//! started.

use serde::{Deserialize, Serialize};

use crate::text::printable;

/// Lines of each log that [`ExitStory::tail`] shows.
const TAIL_LINES: usize = 8;
/// Longest line that is shown, in characters.
const MAX_LINE_CHARS: usize = 500;

/// Beginning of the line that an agent as init prints on the console when the program of the
/// machine has ended; its exit code follows.
pub const PROGRAM_ENDED: &str = "banger: the program ended with code ";

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStory {
    /// The event that ended the run.
    pub cause: ExitCause,
    /// How the VMM ended, if it was started.
    pub vmm: Option<Outcome>,
    /// How the companion ended, if it was started.
    pub companion: Option<Outcome>,
    /// The last action of the guest, if the VMM or the guest's kernel reported it.
    pub guest: Option<GuestEnd>,
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Last bytes of the console.
    pub console_tail: String,
    /// Last bytes of the VMM's log.
    pub vmm_log_tail: String,
}

/// The event that ended a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum ExitCause {
    /// The VMM exited, or a process other than the shim killed it.
    VmmExited,
    /// The companion ended first.
    CompanionDied,
    /// The guest powered off and its VMM did not exit, so the shim ended it.
    PoweredOff,
    /// The shim received SIGTERM.
    #[serde(rename = "asked")]
    Requested,
    /// A process could not be started or watched.
    LaunchFailed {
        /// The step that failed.
        step: String,
        /// Its error.
        message: String,
    },
    /// The shim left no record.
    NoRecord {
        /// What is known instead, in one line.
        reason: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Outcome {
    /// It exited.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// Number of the signal.
        signal: i32,
    },
}

/// The last action of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestEnd {
    /// It powered off.
    #[serde(rename = "shutdown")]
    Poweroff,
    /// It requested a reset.
    #[serde(rename = "reset")]
    Reboot,
    /// Its kernel panicked.
    Panic,
}

/// The state of a run that another daemon started, from the files that its shim wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "run", rename_all = "snake_case")]
pub enum RunFacts {
    /// Shim and VMM are alive.
    Alive {
        /// Process id of the VMM.
        vmm_pid: u32,
    },
    /// The shim started them, and both have ended.
    Ended(ExitStory),
    /// There is no record of a VMM.
    Nothing,
}

impl ExitStory {
    /// The story of a run whose shim left no record; `reason` is one line.
    pub fn unknown(reason: &str) -> Self {
        Self {
            cause: ExitCause::NoRecord { reason: reason.into() },
            vmm: None,
            companion: None,
            guest: None,
            at_unix_ms: 0,
            console_tail: String::new(),
            vmm_log_tail: String::new(),
        }
    }

    /// Cause and exit code or signal, in one line.
    pub fn summary(&self) -> String {
        match &self.cause {
            ExitCause::VmmExited => ended("the VMM", self.vmm),
            ExitCause::CompanionDied => {
                format!("{}, so the VMM was ended", ended("the companion", self.companion))
            }
            ExitCause::PoweredOff => "the guest powered off".into(),
            ExitCause::Requested => "the VMM was ended as requested".into(),
            ExitCause::LaunchFailed { step, message } => format!("{step} failed: {message}"),
            ExitCause::NoRecord { reason } => reason.clone(),
        }
    }

    /// Exit code of the machine's program, if the guest printed one as the last.
    pub fn program_code(&self) -> Option<u8> {
        let (_, code) = self.console_tail.rsplit_once(PROGRAM_ENDED)?;
        let digits = code.bytes().take_while(u8::is_ascii_digit).count();
        code.get(..digits)?.parse().ok()
    }

    /// Last lines of the console, then of the VMM's log, without control characters and blank
    /// lines.
    pub fn tail(&self) -> String {
        let mut shown = Vec::new();
        for log in [&self.console_tail, &self.vmm_log_tail] {
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES));
            shown.extend(last.map(|line| printable(line, MAX_LINE_CHARS)));
        }
        shown.join("\n").trim_end().to_owned()
    }
}

fn ended(process: &str, outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Exited { code }) => format!("{process} exited with code {code}"),
        Some(Outcome::Signaled { signal }) => format!("{process} was killed by signal {signal}"),
        None => format!("{process} never ran"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(cause: ExitCause) -> ExitStory {
        ExitStory { cause, ..ExitStory::unknown("") }
    }

    #[test]
    fn each_cause_has_a_summary() {
        let killed = Some(Outcome::Signaled { signal: 9 });
        let exited = Some(Outcome::Exited { code: 3 });
        let vmm = |vmm| ExitStory { vmm, ..story(ExitCause::VmmExited) };
        assert_eq!(vmm(killed).summary(), "the VMM was killed by signal 9");
        assert_eq!(vmm(exited).summary(), "the VMM exited with code 3");
        assert_eq!(vmm(None).summary(), "the VMM never ran");
        let companion = ExitStory { companion: exited, ..story(ExitCause::CompanionDied) };
        let expected = "the companion exited with code 3, so the VMM was ended";
        assert_eq!(companion.summary(), expected);
        let failed = ExitCause::LaunchFailed { step: "vmm".into(), message: "no file".into() };
        assert_eq!(story(failed).summary(), "vmm failed: no file");
        assert_eq!(ExitStory::unknown("gone").summary(), "gone");
    }

    #[test]
    fn the_tail_is_short_and_printable() {
        let console_tail = (0..20).map(|n| format!("line {n}\u{1b}[1m\n\n")).collect();
        let story_with_logs =
            ExitStory { console_tail, vmm_log_tail: "why\n".into(), ..story(ExitCause::Requested) };
        let tail = story_with_logs.tail();
        assert_eq!(tail.lines().count(), TAIL_LINES + 1);
        assert!(tail.starts_with("line 12 [1m\n") && tail.ends_with("\nwhy"), "{tail}");
        assert_eq!(story(ExitCause::Requested).tail(), "");
    }

    #[test]
    fn the_exit_code_of_a_program_is_read_from_the_console() {
        let code = |console_tail: &str| {
            let console_tail = console_tail.into();
            ExitStory { console_tail, ..story(ExitCause::VmmExited) }.program_code()
        };
        let line = format!("no newline[    3.25] {PROGRAM_ENDED}7\r\n[    3.5] reboot: Power down");
        assert_eq!(code(&line), Some(7));
        assert_eq!(code(&format!("{PROGRAM_ENDED}1\n{PROGRAM_ENDED}143\n")), Some(143));
        for other in ["", "7", PROGRAM_ENDED] {
            assert_eq!(code(other), None, "{other}");
        }
        assert_eq!(code(&format!("{PROGRAM_ENDED}256\n")), None);
    }

    #[test]
    fn records_of_earlier_builds_are_read() {
        let text = r#"{"vm":"0123456789ab","cause":{"cause":"vmm_exited"},
            "vmm":{"how":"exited","code":0},"companion":null,"guest":"shutdown",
            "at_unix_ms":1,"console_tail":"x","vmm_log_tail":""}"#;
        let read: ExitStory = serde_json::from_str(text).unwrap();
        assert_eq!(read.guest, Some(GuestEnd::Poweroff));
        let facts = RunFacts::Ended(read);
        let line = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<RunFacts>(&line).unwrap(), facts);
    }
}
