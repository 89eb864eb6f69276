//! Just enough of QMP (QEMU's docs/interop/qmp-spec) to hear what the guest did last.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use banger_shim::GuestLast;

/// Longest line that is kept; longer ones are of no interest.
const MAX_LINE: usize = 64 * 1024;

/// The shim's end of the connection.
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// What the guest did last.
    pub guest: Option<GuestLast>,
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// There may be.
    Open,
    /// The other end is closed.
    Ended,
}

impl Qmp {
    /// Listens on a non-blocking stream.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), guest: None }
    }

    /// The descriptor to poll.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what there is.
    pub fn read(&mut self) -> Stream {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Stream::Ended,
                Ok(count) => self.take(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Stream::Open;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Stream::Ended,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.line(&line);
        }
        if self.buffer.len() > MAX_LINE {
            self.buffer.clear();
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else { return };
        if message.get("QMP").is_some() {
            // Without this no event is ever sent. A VMM that ended meanwhile is noticed elsewhere.
            let _ = self.stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n");
            return;
        }
        let reason = message.pointer("/data/reason").and_then(serde_json::Value::as_str);
        match (message.get("event").and_then(serde_json::Value::as_str), reason) {
            (Some("SHUTDOWN"), Some("guest-shutdown")) => self.guest = Some(GuestLast::Shutdown),
            // A panic with `panic=-1` ends in a reset too: what was heard first is what counts.
            (Some("SHUTDOWN"), Some("guest-reset")) => {
                self.guest.get_or_insert(GuestLast::Reset);
            }
            (Some("GUEST_PANICKED"), _) => self.guest = Some(GuestLast::Panic),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> (Option<GuestLast>, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut qmp = Qmp::new(ours);
        for line in lines {
            theirs.write_all(line.as_bytes()).unwrap();
            theirs.write_all(b"\r\n").unwrap();
        }
        assert_eq!(qmp.read(), Stream::Open);
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(qmp.read(), Stream::Ended);
        let guest = qmp.guest;
        drop(qmp);
        let mut said = String::new();
        let _ = theirs.read_to_string(&mut said);
        (guest, said)
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    #[test]
    fn what_the_guest_did_last() {
        let off = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
        let reset = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        let panic = r#"{"event": "GUEST_PANICKED", "data": {"action": "pause"}}"#;
        let killed = r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}"#;
        assert_eq!(heard(&[GREETING, r#"{"return": {}}"#, off]).0, Some(GuestLast::Shutdown));
        assert_eq!(heard(&[GREETING, reset]).0, Some(GuestLast::Reset));
        assert_eq!(heard(&[GREETING, panic, reset]).0, Some(GuestLast::Panic));
        assert_eq!(heard(&[GREETING, killed, "garbage", "{"]).0, None);
        assert_eq!(heard(&[GREETING]).1, "{\"execute\":\"qmp_capabilities\"}\n");
        assert_eq!(heard(&[]).1, "");
    }
}
