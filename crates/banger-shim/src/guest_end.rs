//! Detects the guest's last action from the kernel's messages on the console (`kernel/reboot.c` and
//! `kernel/panic.c` of Linux), whose level is shown at any console log level.
//!
//! A guest can print these lines without performing the action. That affects only itself.

use banger_shim::GuestEnd;

use crate::lines::Lines;

/// Scans a stream of bytes for the messages.
#[derive(Debug, Default)]
pub struct GuestEndScanner {
    lines: Lines,
    /// The guest's last action.
    pub guest: Option<GuestEnd>,
}

impl GuestEndScanner {
    /// Scans the next bytes.
    pub fn scan(&mut self, bytes: &[u8]) {
        let Self { lines, guest } = self;
        // The last message counts: a kernel that panicked prints none of the others, because it
        // resets the machine by emergency_restart().
        lines.push(bytes, |line| *guest = action_of(line).or(*guest));
    }
}

fn action_of(line: &str) -> Option<GuestEnd> {
    // `[   12.345678] reboot: Power down`; the timestamp is optional.
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

    fn scanned(text: &str) -> Option<GuestEnd> {
        let mut scanner = GuestEndScanner::default();
        for byte in text.as_bytes() {
            scanner.scan(&[*byte]);
        }
        scanner.guest
    }

    #[test]
    fn the_last_action_of_the_guest_is_detected() {
        let off = "[    7.123456] reboot: Power down\r\n";
        assert_eq!(scanned(off), Some(GuestEnd::Poweroff));
        assert_eq!(scanned("reboot: System halted\n"), Some(GuestEnd::Poweroff));
        let restart = "x\n[   99.000001] reboot: Restarting system\n";
        assert_eq!(scanned(restart), Some(GuestEnd::Reboot));
        assert_eq!(
            scanned("[ 1.0] reboot: Restarting system with command 'x'\n"),
            Some(GuestEnd::Reboot)
        );
        let panic = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n";
        let trace = "[ 1.1] CPU: 0 PID: 1 Comm: init\n[ 1.2] Call Trace:\n";
        assert_eq!(scanned(&format!("{panic}{trace}")), Some(GuestEnd::Panic));
        for other in
            ["", "reboot: Power down", "echo reboot: Power down\n", "[1] reboot: Power downs\n"]
        {
            assert_eq!(scanned(other), None, "{other}");
        }
    }

    #[test]
    fn a_printed_panic_does_not_hide_a_later_reboot() {
        let printed = "Kernel panic - not syncing: an old log\n";
        assert_eq!(
            scanned(&format!("{printed}[ 2.0] reboot: Restarting system\n")),
            Some(GuestEnd::Reboot)
        );
        assert_eq!(scanned(&format!("{printed}reboot: Power down\n")), Some(GuestEnd::Poweroff));
    }
}
