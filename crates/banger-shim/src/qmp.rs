//! The part of QMP (QEMU's docs/interop/qmp-spec) that tells what the guest did last, and holds and
//! resumes a guest whose disk writes fail.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use banger_shim::GuestEnd;
use serde_json::Value;

use crate::held::Held;

/// Longest line that is kept; longer ones are of no interest and skipped to their end.
const MAX_LINE: usize = 64 * 1024;
/// Most pieces that are read in one go, so that who floods it cannot keep the shim from everything
/// else.
const GO: usize = 64;

/// The shim's end of the connection.
pub struct Qmp {
    /// Until the other end is closed.
    stream: Option<UnixStream>,
    line: Vec<u8>,
    rest: Rest,
    /// What the guest did last.
    pub guest: Option<GuestEnd>,
    /// Whether QEMU stopped the guest for a failed disk write.
    pub held: Held,
}

/// What becomes of the rest of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Kept,
    Skipped,
}

impl Qmp {
    /// Listens on a stream.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: Some(stream),
            line: Vec::new(),
            rest: Rest::Kept,
            guest: None,
            held: Held::default(),
        })
    }

    /// Tells QEMU to continue the guest; `RESUME` follows where it does.
    pub fn resume(&mut self) {
        self.execute("cont");
    }

    fn execute(&mut self, command: &str) {
        // A VMM that ended meanwhile is noticed elsewhere; one that reads nothing only loses its
        // own commands, which are repeated or needed by itself.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes());
        }
    }

    /// The descriptor to poll; nothing once the other end is closed.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Reads what there is, up to a limit.
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
                self.hear(&line);
                self.rest = Rest::Kept;
            }
        }
    }

    fn hear(&mut self, line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { return };
        if message.get("QMP").is_some() {
            // Without this no event is ever sent.
            self.execute("qmp_capabilities");
            return;
        }
        let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
        let reason = text("/data/reason");
        match (text("/event"), reason) {
            (Some("BLOCK_IO_ERROR"), _) => {
                let no_space = message.pointer("/data/nospace").and_then(Value::as_bool);
                let action = text("/data/action").unwrap_or_default();
                let reason = reason.unwrap_or_default();
                self.held.write_failed(action, no_space == Some(true), reason);
            }
            (Some("STOP"), _) => self.held.stopped(Instant::now()),
            (Some("RESUME"), _) => self.held.resumed(Instant::now()),
            // RESET is not among them: the guest goes on after it, so it says nothing of the end.
            (Some("SHUTDOWN"), Some("guest-shutdown")) => self.guest = Some(GuestEnd::Poweroff),
            // A panic with `panic=-1` ends in a reset too: what was heard first is what counts.
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
        let mut said = String::new();
        // Where it was not told all, this ends in a reset connection.
        let _ = theirs.read_to_string(&mut said);
        (guest, said)
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const OFF: &str =
        r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;

    #[test]
    fn what_the_guest_did_last() {
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
    fn a_guest_held_for_a_full_disk_is_known_and_resumed() {
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
        assert_eq!(qmp.held.trouble(), Some(DiskTrouble::HeldNoSpace));
        qmp.resume();
        hear(&mut qmp, r#"{"event": "RESUME"}"#);
        assert_eq!(qmp.held.trouble(), None);
        hear(&mut qmp, r#"{"event": "STOP"}"#);
        assert_eq!(qmp.held.trouble(), None, "a stop without an error is somebody's wish");
        drop(qmp);
        let mut said = String::new();
        theirs.read_to_string(&mut said).unwrap();
        assert_eq!(said.lines().last(), Some(r#"{"execute":"cont"}"#));
    }

    #[test]
    fn a_line_without_end_is_skipped_to_its_end() {
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
