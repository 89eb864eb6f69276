//! What a guest did last, from what its kernel says on the console: `kernel/reboot.c` and
//! `kernel/panic.c` of Linux, at a level that is shown whatever the console's own level is.
//!
//! A guest can say so without doing it. It harms only itself: it could as well have done it.

use banger_shim::GuestEnd;

/// Longest part of a line that is kept.
const MAX_LINE: usize = 256;

/// Looks for last words in a stream of bytes.
#[derive(Debug, Default)]
pub struct LastWords {
    line: Vec<u8>,
    /// What the guest did last.
    pub guest: Option<GuestEnd>,
}

impl LastWords {
    /// Takes in what came next.
    pub fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line_ended(&String::from_utf8_lossy(&line));
            } else if self.line.len() < MAX_LINE {
                self.line.push(*byte);
            }
        }
    }

    fn line_ended(&mut self, line: &str) {
        // `[   12.345678] reboot: Power down`; without times it begins the line.
        let text = match line.trim().split_once("] ") {
            Some((time, text)) if time.starts_with('[') => text.trim(),
            _ => line.trim(),
        };
        if text.starts_with("Kernel panic - not syncing") {
            self.guest = Some(GuestEnd::Panic);
        }
        let last = match text {
            "reboot: Power down" | "reboot: System halted" => GuestEnd::Poweroff,
            "reboot: Restarting system" => GuestEnd::Reboot,
            _ => return,
        };
        // A kernel that panics restarts afterwards: what was heard first is what counts.
        self.guest.get_or_insert(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Option<GuestEnd> {
        let mut words = LastWords::default();
        for byte in text.as_bytes() {
            words.hear(&[*byte]);
        }
        words.guest
    }

    #[test]
    fn what_the_guest_did_last() {
        let off = "[    7.123456] reboot: Power down\r\n";
        assert_eq!(heard(off), Some(GuestEnd::Poweroff));
        assert_eq!(heard("reboot: System halted\n"), Some(GuestEnd::Poweroff));
        assert_eq!(heard("x\n[   99.000001] reboot: Restarting system\n"), Some(GuestEnd::Reboot));
        let panic = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n";
        assert_eq!(
            heard(&format!("{panic}[ 2.0] reboot: Restarting system\n")),
            Some(GuestEnd::Panic)
        );
        for other in
            ["", "reboot: Power down", "echo reboot: Power down\n", "[1] reboot: Power downs\n"]
        {
            assert_eq!(heard(other), None, "{other}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let mut words = LastWords::default();
        words.hear(&[b'x'; 100_000]);
        assert!(words.line.len() <= MAX_LINE);
        words.hear(b"\nreboot: Power down\n");
        assert_eq!(words.guest, Some(GuestEnd::Poweroff));
    }
}
