//! What a guest did last, from what its kernel says on the console: `kernel/reboot.c` and
//! `kernel/panic.c` of Linux, at a level that is shown whatever the console's own level is.
//!
//! A guest can print these lines without doing what they say. It harms only itself.

use banger_shim::GuestEnd;

use crate::lines::Lines;

/// Looks for last words in a stream of bytes.
#[derive(Debug, Default)]
pub struct LastWords {
    lines: Lines,
    /// What the guest did last.
    pub guest: Option<GuestEnd>,
}

impl LastWords {
    /// Takes in what came next.
    pub fn hear(&mut self, bytes: &[u8]) {
        let Self { lines, guest } = self;
        // The last such line counts: a kernel that panicked prints none of the others, since it
        // resets the machine by emergency_restart().
        lines.hear(bytes, |line| *guest = said(line).or(*guest));
    }
}

fn said(line: &str) -> Option<GuestEnd> {
    // `[   12.345678] reboot: Power down`; without times it begins the line.
    let text = match line.trim().split_once("] ") {
        Some((time, text)) if time.starts_with('[') => text.trim(),
        _ => line.trim(),
    };
    match text {
        "reboot: Power down" | "reboot: System halted" => Some(GuestEnd::Poweroff),
        "reboot: Restarting system" => Some(GuestEnd::Reboot),
        _ if text.starts_with("reboot: Restarting system with command") => Some(GuestEnd::Reboot),
        _ if text.starts_with("Kernel panic - not syncing") => Some(GuestEnd::Panic),
        _ => None,
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
        let restart = "x\n[   99.000001] reboot: Restarting system\n";
        assert_eq!(heard(restart), Some(GuestEnd::Reboot));
        assert_eq!(
            heard("[ 1.0] reboot: Restarting system with command 'x'\n"),
            Some(GuestEnd::Reboot)
        );
        let panic = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n";
        let trace = "[ 1.1] CPU: 0 PID: 1 Comm: init\n[ 1.2] Call Trace:\n";
        assert_eq!(heard(&format!("{panic}{trace}")), Some(GuestEnd::Panic));
        for other in
            ["", "reboot: Power down", "echo reboot: Power down\n", "[1] reboot: Power downs\n"]
        {
            assert_eq!(heard(other), None, "{other}");
        }
    }

    #[test]
    fn a_panic_that_somebody_printed_does_not_hide_a_later_reboot() {
        let printed = "Kernel panic - not syncing: an old log\n";
        assert_eq!(
            heard(&format!("{printed}[ 2.0] reboot: Restarting system\n")),
            Some(GuestEnd::Reboot)
        );
        assert_eq!(heard(&format!("{printed}reboot: Power down\n")), Some(GuestEnd::Poweroff));
    }
}
