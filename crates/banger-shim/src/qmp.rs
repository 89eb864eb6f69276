//! The part of QMP (QEMU's docs/interop/qmp-spec) that reports the guest's last action, and pauses
//! and resumes the vCPUs: on request, and for failed disk writes.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use banger_shim::GuestEnd;
use serde_json::Value;

use crate::user_pause::{VcpuCommand, Vcpus};

/// Maximum length of a line; longer ones are not relevant and skipped.
const MAX_LINE: usize = 64 * 1024;
/// Maximum number of reads at once, so that a flood does not keep the shim from other events.
const GO: usize = 64;

/// The shim's end of the connection.
pub struct Qmp {
    /// `None` once the peer closed the connection.
    stream: Option<UnixStream>,
    line: Vec<u8>,
    rest: Rest,
    negotiation: Negotiation,
    /// The last command before the negotiation.
    unsent: Option<VcpuCommand>,
    /// The guest's last action.
    pub guest: Option<GuestEnd>,
    /// Whether the vCPUs run, and why they are paused.
    pub vcpus: Vcpus,
}

/// The exchange of capabilities with which a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Negotiation {
    /// QEMU has not sent its greeting.
    Pending,
    /// It has, and commands follow.
    Done,
}

/// Treatment of the rest of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Kept,
    Skipped,
}

impl Qmp {
    /// Starts on a stream.
    ///
    /// # Errors
    /// The stream cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: Some(stream),
            line: Vec::new(),
            rest: Rest::Kept,
            negotiation: Negotiation::Pending,
            unsent: None,
            guest: None,
            vcpus: Vcpus::default(),
        })
    }

    /// Sends a command, once QEMU accepts commands; it answers with the event `STOP` or `RESUME`.
    pub fn send(&mut self, command: VcpuCommand) {
        if self.negotiation == Negotiation::Pending {
            self.unsent = Some(command);
            return;
        }
        self.execute(match command {
            VcpuCommand::Stop => "stop",
            VcpuCommand::Continue => "cont",
        });
    }

    fn execute(&mut self, command: &str) {
        // Errors are ignored: the end of the VMM is noticed elsewhere, and a VMM that does not read
        // loses only its own commands, which are repeated.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes());
        }
    }

    /// The descriptor to poll; `None` once the connection is closed.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Reads pending bytes, up to a limit.
    pub fn read(&mut self) {
        let mut piece = [0; 4096];
        for _ in 0..GO {
            let Some(stream) = &mut self.stream else { return };
            match stream.read(&mut piece) {
                Ok(0) => self.stream = None,
                Ok(count) => self.take(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.stream = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE {
                self.rest = Rest::Skipped;
                self.line.clear();
            }
            if self.rest == Rest::Kept {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.handle_line(&line);
                self.rest = Rest::Kept;
            }
        }
    }

    fn handle_line(&mut self, line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { return };
        if message.get("QMP").is_some() {
            // QEMU accepts no other commands, and sends no events, before `qmp_capabilities`.
            self.execute("qmp_capabilities");
            self.negotiation = Negotiation::Done;
            if let Some(command) = self.unsent.take() {
                self.send(command);
            }
            return;
        }
        let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
        let reason = text("/data/reason");
        match (text("/event"), reason) {
            (Some("BLOCK_IO_ERROR"), _) => {
                let no_space = message.pointer("/data/nospace").and_then(Value::as_bool);
                let action = text("/data/action").unwrap_or_default();
                let reason = reason.unwrap_or_default();
                self.vcpus.disk_pause.write_failed(action, no_space == Some(true), reason);
            }
            (Some("STOP"), _) => self.vcpus.stopped(Instant::now()),
            (Some("RESUME"), _) => self.vcpus.resumed(Instant::now()),
            // RESET is not listed: the guest continues after it.
            (Some("SHUTDOWN"), Some("guest-shutdown")) => self.guest = Some(GuestEnd::Poweroff),
            // A panic with `panic=-1` also ends in a reset, so the first event counts.
            (Some("SHUTDOWN"), Some("guest-reset")) => {
                self.guest.get_or_insert(GuestEnd::Reboot);
            }
            (Some("GUEST_PANICKED"), _) | (Some("SHUTDOWN"), Some("guest-panic")) => {
                self.guest = Some(GuestEnd::Panic)
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> (Option<GuestEnd>, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        for line in lines {
            theirs.write_all(line.as_bytes()).unwrap();
            theirs.write_all(b"\r\n").unwrap();
            qmp.read();
        }
        assert!(qmp.source().is_some());
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        qmp.read();
        assert!(qmp.source().is_none());
        let guest = qmp.guest;
        drop(qmp);
        let mut output = String::new();
        // If the shim did not read everything, the connection is reset.
        let _ = theirs.read_to_string(&mut output);
        (guest, output)
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const OFF: &str =
        r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;

    #[test]
    fn the_last_action_of_the_guest_is_known() {
        let reset = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        let goes_on = r#"{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}"#;
        let panic = r#"{"event": "GUEST_PANICKED", "data": {"action": "pause"}}"#;
        let killed = r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}"#;
        assert_eq!(heard(&[GREETING, r#"{"return": {}}"#, OFF]).0, Some(GuestEnd::Poweroff));
        assert_eq!(heard(&[GREETING, reset]).0, Some(GuestEnd::Reboot));
        assert_eq!(heard(&[GREETING, panic, reset]).0, Some(GuestEnd::Panic));
        assert_eq!(heard(&[GREETING, killed, goes_on, "garbage", "{", "[1]", "7"]).0, None);
        assert_eq!(heard(&[GREETING]).1, "{\"execute\":\"qmp_capabilities\"}\n");
        assert_eq!(heard(&[]).1, "");
    }

    #[test]
    fn a_guest_paused_for_a_full_disk_is_resumed() {
        use banger_shim::DiskTrouble;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        let mut hear = |qmp: &mut Qmp, line: &str| {
            theirs.write_all(format!("{line}\n").as_bytes()).unwrap();
            qmp.read();
        };
        hear(&mut qmp, GREETING);
        let error = r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "root", "operation": "write",
            "action": "stop", "nospace": true, "reason": "No space left on device"}}"#;
        hear(&mut qmp, &error.replace('\n', ""));
        hear(&mut qmp, r#"{"event": "STOP"}"#);
        assert_eq!(qmp.vcpus.disk_pause.trouble(), Some(DiskTrouble::HeldNoSpace));
        qmp.send(VcpuCommand::Continue);
        hear(&mut qmp, r#"{"event": "RESUME"}"#);
        assert!(!qmp.vcpus.disk_pause.is_held());
        hear(&mut qmp, r#"{"event": "STOP"}"#);
        assert!(!qmp.vcpus.disk_pause.is_held(), "a stop without an error is a requested one");
        drop(qmp);
        let mut output = String::new();
        theirs.read_to_string(&mut output).unwrap();
        assert_eq!(output.lines().last(), Some(r#"{"execute":"cont"}"#));
    }

    #[test]
    fn a_command_before_the_greeting_follows_the_negotiation() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        qmp.send(VcpuCommand::Continue);
        qmp.send(VcpuCommand::Stop);
        theirs.write_all(format!("{GREETING}\n").as_bytes()).unwrap();
        qmp.read();
        drop(qmp);
        let mut output = String::new();
        theirs.read_to_string(&mut output).unwrap();
        let sent = ["qmp_capabilities", "stop"].map(|name| format!("{{\"execute\":\"{name}\"}}\n"));
        assert_eq!(output, sent.concat());
    }

    #[test]
    fn an_overlong_line_is_skipped() {
        let long = format!("{}{OFF}", " ".repeat(2 * MAX_LINE));
        assert_eq!(heard(&[GREETING, &long]).0, None);
        assert_eq!(heard(&[GREETING, &long, OFF]).0, Some(GuestEnd::Poweroff));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        for _ in 0..1000 {
            theirs.write_all(&[b'x'; 4096]).unwrap();
            qmp.read();
            assert!(qmp.line.capacity() <= 2 * MAX_LINE);
        }
    }
}
