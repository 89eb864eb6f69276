//! A guest that QEMU paused because a disk write failed on the host, and the schedule for resuming
//! it.
//!
//! QEMU is started with `werror=stop`: it keeps the failed request, emits `BLOCK_IO_ERROR`, stops
//! the vCPUs (`STOP`), and repeats the request after the command to continue (QEMU's
//! docs/interop/qmp, events BLOCK_IO_ERROR, STOP, RESUME). Pure: time and free space are arguments.

use std::time::{Duration, Instant};

use banger_shim::{DiskTrouble, ENOUGH_SPACE};

/// Pause before the first check of the disk; doubled for each resume that failed soon.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of doublings: 16 s.
const MAX_DOUBLINGS: u32 = 4;
/// A guest that ran this long after a resume starts again with the first pause.
const LASTED: Duration = Duration::from_secs(60);
/// QEMU repeats a failed request immediately after a resume; a guest that ran this long can write.
const CONFIRMED: Duration = Duration::from_secs(1);

/// Whether the VMM has paused the guest, and since when.
#[derive(Debug, Default)]
pub struct DiskPause {
    /// The write error to which the next `STOP` belongs.
    error: Option<DiskTrouble>,
    held: Option<(DiskTrouble, Instant)>,
    resumed: Option<Instant>,
    /// Why a guest was paused that runs again, until the time at which it counts as able to write.
    unconfirmed: Option<(DiskTrouble, Instant)>,
    /// Number of consecutive resumes that failed soon.
    failed: u32,
}

impl DiskPause {
    /// A disk request failed. `action` is QEMU's reaction.
    pub fn write_failed(&mut self, action: &str, no_space: bool, reason: &str) {
        if action == "stop" && self.held.is_none() {
            // Quotas and file size limits can also be lifted; QEMU reports neither as lack of
            // space.
            let room =
                no_space || ["space", "quota", "too large"].iter().any(|w| reason.contains(w));
            let kind = if room { DiskTrouble::HeldNoSpace } else { DiskTrouble::HeldWriteError };
            self.error = Some(kind);
        }
    }

    /// The vCPUs were stopped.
    pub fn stopped(&mut self, now: Instant) {
        let Some(kind) = self.error.take() else { return };
        let soon = self.resumed.take().is_some_and(|at| now.duration_since(at) < LASTED);
        self.failed = if soon { self.failed.saturating_add(1) } else { 0 };
        self.held = Some((kind, now + self.pause()));
        self.unconfirmed = None;
    }

    /// The vCPUs run again.
    pub fn resumed(&mut self, now: Instant) {
        if let Some((kind, _)) = self.held.take() {
            self.resumed = Some(now);
            // For want of space it is resumed only when there is space.
            let is_attempt = kind == DiskTrouble::HeldWriteError;
            self.unconfirmed = is_attempt.then_some((kind, now + CONFIRMED));
        }
        self.error = None;
    }

    fn pause(&self) -> Duration {
        FIRST_PAUSE * 2u32.pow(self.failed.min(MAX_DOUBLINGS))
    }

    /// Whether the guest is paused for its disk.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Why the guest is paused, also while it runs for a moment between two failed attempts.
    pub fn trouble(&self) -> Option<DiskTrouble> {
        self.held.or(self.unconfirmed).map(|(kind, _)| kind)
    }

    /// When to call [`Self::try_again`].
    pub fn due(&self) -> Option<Instant> {
        self.held.or(self.unconfirmed).map(|(_, due)| due)
    }

    /// Whether to resume the guest now, with this many free bytes on the disks' file system.
    pub fn try_again(&mut self, now: Instant, free: Option<u64>) -> bool {
        self.unconfirmed = self.unconfirmed.filter(|(_, until)| now < *until);
        let pause = self.pause();
        let Some((kind, due)) = &mut self.held else { return false };
        if now < *due {
            return false;
        }
        *due = now + pause;
        // If the free space is unknown or was not the problem, only an attempt shows whether a
        // write works.
        *kind == DiskTrouble::HeldWriteError || free.is_none_or(|free| free >= ENOUGH_SPACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(no_space: bool, reason: &str) -> (DiskPause, Instant) {
        let (mut held, now) = (DiskPause::default(), Instant::now());
        held.write_failed("stop", no_space, reason);
        assert_eq!((held.trouble(), held.due()), (None, None), "the guest runs until STOP");
        held.stopped(now);
        (held, now)
    }

    #[test]
    fn a_guest_paused_for_space_is_resumed_when_there_is_space() {
        let (mut held, now) = held(true, "No space left on device");
        assert_eq!(held.trouble(), Some(DiskTrouble::HeldNoSpace));
        assert_eq!(held.due(), Some(now + SECOND));
        assert!(!held.try_again(now, Some(1 << 30)), "before the pause is over");
        assert!(!held.try_again(now + SECOND, Some(0)));
        assert_eq!(held.due(), Some(now + 2 * SECOND), "checked again after the same pause");
        assert!(held.try_again(now + 2 * SECOND, Some(ENOUGH_SPACE)));
        held.resumed(now + 2 * SECOND);
        assert_eq!((held.trouble(), held.due()), (None, None));
    }

    #[test]
    fn other_errors_are_retried_with_backoff() {
        let (mut held, mut now) = held(false, "Input/output error");
        assert_eq!(held.trouble(), Some(DiskTrouble::HeldWriteError));
        for pause in [1, 2, 4, 8, 16, 16] {
            assert_eq!(held.due(), Some(now + pause * SECOND));
            now += pause * SECOND;
            assert!(held.try_again(now, Some(1 << 40)));
            held.resumed(now);
            held.write_failed("stop", false, "Input/output error");
            assert_eq!(held.trouble(), Some(DiskTrouble::HeldWriteError), "between two attempts");
            held.stopped(now);
        }
        assert!(held.try_again(now + 16 * SECOND, None));
        held.resumed(now);
        held.write_failed("stop", false, "Input/output error");
        held.stopped(now + LASTED);
        assert_eq!(held.due(), Some(now + LASTED + SECOND), "the guest had run long enough");
    }

    #[test]
    fn the_reason_stays_until_an_attempt_has_succeeded() {
        let (mut held, now) = held(false, "Input/output error");
        held.resumed(now);
        assert_eq!((held.is_held(), held.trouble()), (false, Some(DiskTrouble::HeldWriteError)));
        assert_eq!(held.due(), Some(now + CONFIRMED));
        assert!(!held.try_again(now + CONFIRMED, None), "it runs");
        assert_eq!((held.trouble(), held.due()), (None, None));
    }

    #[test]
    fn quotas_and_file_limits_are_a_lack_of_space() {
        for reason in ["Disk quota exceeded", "File too large", "No space left on device"] {
            assert_eq!(held(false, reason).0.trouble(), Some(DiskTrouble::HeldNoSpace), "{reason}");
        }
    }

    #[test]
    fn a_stop_for_another_reason_is_not_resumed() {
        let (mut held, now) = (DiskPause::default(), Instant::now());
        held.write_failed("report", true, "No space left on device");
        held.stopped(now);
        assert_eq!(held.trouble(), None);
        // An error before a resume does not belong to a later stop.
        held.write_failed("stop", true, "No space left on device");
        held.resumed(now);
        held.stopped(now);
        assert_eq!(held.trouble(), None);
        assert!(!held.try_again(now + 60 * SECOND, None));
    }
}
