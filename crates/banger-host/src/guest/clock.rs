//! Offset of a guest's clock, computed from a request and its answer (as RFC 5905 section 8).

use super::channel::Times;

/// Offsets up to this many microseconds are not corrected.
const TOLERANCE_US: i64 = 20_000;

/// The host's time minus the guest's; `None` if it is within the measurement's uncertainty. The
/// guest read its clock between request and answer, in the middle at best.
pub fn offset_us(times: &Times, guest_us: i64) -> Option<i64> {
    let round_trip = times.received_us.saturating_sub(times.sent_us);
    // The host's clock was set between both.
    if round_trip < 0 {
        return None;
    }
    let middle = times.sent_us.saturating_add(round_trip / 2);
    let offset = middle.saturating_sub(guest_us);
    let uncertain = (round_trip / 2).max(TOLERANCE_US);
    (offset.unsigned_abs() > uncertain.unsigned_abs()).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncertain_clock_offset_is_not_reported() {
        const MS: i64 = 1000;
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
            let times = Times { sent_us: sent * MS, received_us: received * MS };
            let offset = offset_us(&times, guest * MS);
            assert_eq!(offset, expected.map(|ms: i64| ms * MS), "{sent} {received} {guest}");
        }
    }

    #[test]
    fn any_time_of_a_guest_is_accepted() {
        let times = Times { sent_us: i64::MAX - 1, received_us: i64::MAX };
        for guest in [i64::MIN, 0, i64::MAX] {
            offset_us(&times, guest);
        }
    }
}
