//! The wall clock: follows the host's.
//!
//! The host compares clocks periodically, and at once after its own clock jumped (sleep). Between
//! comparisons the agent derives the time from the monotonic clock, and so detects that a program
//! of the guest set the clock.
//!
//! Small differences are slewed. The clock is stepped back only after an interruption (a pause of
//! the guest or sleep of the host), and where it is wrong by more than any clock drifts between two
//! comparisons: a running program never sees an ordinary step back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_agent_proto::http::ClockHistory;
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    clock_settime, timerfd_create, timerfd_settime,
};

use crate::fault::{Context, Fault};
use crate::sys::clock;

/// Differences that a comparison cannot tell from its own travel time, in microseconds.
const TOLERANCE_US: i64 = 20_000;

/// A clock that is behind by more than this is stepped: forward steps disturb few programs.
const STEP_FORWARD_US: i64 = 40_000;

/// A clock that is ahead by more than this is stepped back, and one that NTP keeps is corrected.
const WRONG_US: i64 = 2_000_000;

/// Furthest that a clock is ever moved, in microseconds: a century.
const OFFSET_MAX_US: u64 = 100 * 366 * 24 * 3600 * 1_000_000;

/// How a difference is corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Correction {
    /// Nothing.
    Leave,
    /// Run faster or slower for a while.
    Slew,
    /// Set it.
    Step,
}

/// `offset_us` is the host's time less the guest's.
fn decide(offset_us: i64, is_disciplined: bool, history: ClockHistory) -> Correction {
    match offset_us {
        offset if offset.abs() <= TOLERANCE_US => Correction::Leave,
        // No program could see the time go by; NTP would need minutes.
        _ if history == ClockHistory::Interrupted => Correction::Step,
        offset if offset.abs() > WRONG_US => Correction::Step,
        // Two programs that slew one clock fight over it.
        _ if is_disciplined => Correction::Leave,
        offset if offset > STEP_FORWARD_US => Correction::Step,
        _ => Correction::Slew,
    }
}

/// The clock and its reference.
pub struct WallClock {
    /// Reference time minus monotonic time, in microseconds, of the last comparison.
    reference: Mutex<i64>,
}

impl WallClock {
    /// The clock as it is, which the boot has set.
    pub fn new() -> Self {
        Self { reference: Mutex::new(now_us().saturating_sub(monotonic_us())) }
    }

    fn reference(&self) -> MutexGuard<'_, i64> {
        self.reference.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Corrects the clock by what the host has measured: its time minus the guest's, in
    /// microseconds.
    ///
    /// # Errors
    /// An impossible offset, clock_settime(2), adjtimex(2).
    pub fn correct(&self, offset_us: i64, history: ClockHistory) -> Result<(), Fault> {
        if offset_us.unsigned_abs() > OFFSET_MAX_US {
            return Err(Fault::new(format!("a clock is not off by {offset_us} microseconds")));
        }
        // Held until it is done: the watching thread compares with it.
        let mut reference = self.reference();
        *reference = now_us().saturating_add(offset_us).saturating_sub(monotonic_us());
        apply(offset_us, history)
    }

    /// Corrects the clock whenever a program of the guest sets it; returns only if the kernel
    /// cannot report that.
    pub fn watch(&self) {
        while wait_until_set().is_ok() {
            let reference = self.reference();
            let offset_us = reference.saturating_add(monotonic_us()).saturating_sub(now_us());
            if offset_us.abs() > WRONG_US
                && let Err(fault) = apply(offset_us, ClockHistory::Continuous)
            {
                eprintln!("banger: {}", fault.chain());
            }
        }
    }
}

fn apply(offset_us: i64, history: ClockHistory) -> Result<(), Fault> {
    match decide(offset_us, clock::is_disciplined(), history) {
        Correction::Leave => Ok(()),
        Correction::Slew => clock::slew(offset_us).context(|| "cannot slew the clock".to_owned()),
        Correction::Step => {
            let right_us = now_us().saturating_add(offset_us).max(0);
            let right =
                Timespec { tv_sec: right_us / 1_000_000, tv_nsec: right_us % 1_000_000 * 1000 };
            clock_settime(ClockId::Realtime, right).context(|| "cannot set the clock".to_owned())
        }
    }
}

/// Blocks until the wall clock is set, by whomever (`TFD_TIMER_CANCEL_ON_SET` of
/// timerfd_create(2)).
fn wait_until_set() -> Result<(), Errno> {
    /// Further than the guest will live: the timer itself is of no interest.
    const FAR: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let far = Timespec { tv_sec: now_us() / 1_000_000 + FAR.as_secs() as i64, tv_nsec: 0 };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&timer, flags, &Itimerspec { it_interval: zero, it_value: far })?;
    let mut ticks = [0; 8];
    loop {
        match rustix::io::read(&timer, &mut ticks) {
            Err(Errno::CANCELED) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Microseconds since 1970 by this machine's clock.
pub fn now_us() -> i64 {
    micros(clock_gettime(ClockId::Realtime))
}

fn monotonic_us() -> i64 {
    micros(clock_gettime(ClockId::Monotonic))
}

fn micros(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_slewed_and_large_ones_stepped() {
        const MS: i64 = 1000;
        for (offset_ms, is_disciplined, expected) in [
            (0, false, Correction::Leave),
            (20, false, Correction::Leave),
            (-20, false, Correction::Leave),
            (39, false, Correction::Slew),
            (41, false, Correction::Step),
            (101, false, Correction::Step),
            (3_600_000, false, Correction::Step),
            (-21, false, Correction::Slew),
            (-1_999, false, Correction::Slew),
            (-2_001, false, Correction::Step),
            (101, true, Correction::Leave),
            (-1_999, true, Correction::Leave),
            (2_001, true, Correction::Step),
            (-3_600_000, true, Correction::Step),
        ] {
            let decided = decide(offset_ms * MS, is_disciplined, ClockHistory::Continuous);
            assert_eq!(decided, expected, "{offset_ms} ms, disciplined: {is_disciplined}");
        }
    }

    #[test]
    fn after_an_interruption_the_clock_is_stepped_either_way() {
        for (offset_ms, expected) in [
            (0, Correction::Leave),
            (-20, Correction::Leave),
            (21, Correction::Step),
            (-21, Correction::Step),
            (-3_600_000, Correction::Step),
        ] {
            for is_disciplined in [false, true] {
                let decided = decide(offset_ms * 1000, is_disciplined, ClockHistory::Interrupted);
                assert_eq!(decided, expected, "{offset_ms} ms, disciplined: {is_disciplined}");
            }
        }
    }

    #[test]
    fn impossible_offsets_are_refused() {
        let clock = WallClock::new();
        for history in [ClockHistory::Continuous, ClockHistory::Interrupted] {
            assert!(clock.correct(i64::MAX, history).is_err());
            assert!(clock.correct(i64::MIN, history).is_err());
            assert!(clock.correct(0, history).is_ok());
        }
    }
}
