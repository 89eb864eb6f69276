//! Offset of a guest's clock, computed from a request and its answer (as RFC 5905 section 8).

use super::channel::Times;

/// Offsets up to this many microseconds are not corrected.
const TOLERANCE_US: i64 = 20_000;

/// Uncertainty in microseconds up to which a comparison is not repeated.
const EXACT_US: i64 = 5_000;

/// One comparison of the guest's clock with the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// The host's time minus the guest's, in microseconds, if the guest read its clock in the
    /// middle between request and answer.
    offset_us: i64,
    /// Half of the time between request and answer: the largest error of the offset.
    uncertain_us: i64,
}

impl Comparison {
    /// The guest read `guest_us` between request and answer.
    pub fn new(times: &Times, guest_us: i64) -> Self {
        let round_trip = times.received_us.saturating_sub(times.sent_us);
        if round_trip < 0 {
            // The host's clock was set between both.
            return Self { offset_us: 0, uncertain_us: i64::MAX };
        }
        let middle = times.sent_us.saturating_add(round_trip / 2);
        Self { offset_us: middle.saturating_sub(guest_us), uncertain_us: round_trip / 2 }
    }

    /// Whether another comparison is not worth its time.
    pub fn is_exact(self) -> bool {
        self.uncertain_us <= EXACT_US
    }

    /// The less uncertain one of two.
    pub fn nearer(self, other: Self) -> Self {
        if other.uncertain_us < self.uncertain_us { other } else { self }
    }

    /// The offset to correct; `None` if it is small or within the uncertainty.
    pub fn offset_us(self) -> Option<i64> {
        let uncertain = self.uncertain_us.max(TOLERANCE_US).unsigned_abs();
        (self.offset_us.unsigned_abs() > uncertain).then_some(self.offset_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1000;

    fn compared(sent: i64, received: i64, guest: i64) -> Comparison {
        Comparison::new(&Times { sent_us: sent * MS, received_us: received * MS }, guest * MS)
    }

    #[test]
    fn an_uncertain_clock_offset_is_not_reported() {
        for (sent, received, guest, expected) in [
            (0, 10, 5, None),
            (0, 10, 25, None),
            (0, 10, -3_600_000, Some(3_600_005)),
            (0, 10, 3_600_000, Some(-3_599_995)),
            (0, 10, 105, Some(-100)),
            // Within the duration of the exchange.
            (0, 1000, 900, None),
            (0, 1000, 1100, Some(-600)),
            (10, 0, 3_600_000, None),
        ] {
            let offset = compared(sent, received, guest).offset_us();
            assert_eq!(offset, expected.map(|ms: i64| ms * MS), "{sent} {received} {guest}");
        }
    }

    #[test]
    fn the_shortest_exchange_counts() {
        let (slow, quick) = (compared(0, 400, 100), compared(1000, 1008, 900));
        assert_eq!(slow.offset_us(), None);
        assert_eq!(slow.nearer(quick).offset_us(), Some(104 * MS));
        assert_eq!(quick.nearer(slow), quick);
        assert!(quick.is_exact() && !slow.is_exact());
        let invalid = compared(10, 0, 0);
        assert_eq!(invalid.nearer(slow), slow);
    }

    #[test]
    fn any_time_of_a_guest_is_accepted() {
        let times = Times { sent_us: i64::MAX - 1, received_us: i64::MAX };
        for guest in [i64::MIN, 0, i64::MAX] {
            Comparison::new(&times, guest).offset_us();
        }
    }
}
