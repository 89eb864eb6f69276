//! Transfer rate over the last seconds.

use std::collections::VecDeque;

/// Length of the window, in milliseconds.
const WINDOW_MS: u64 = 5_000;

/// Measures bytes per second.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<(u64, u64)>);

impl Rate {
    /// Adds a sample: time and total bytes. Returns bytes per second from the second sample on.
    pub fn at(&mut self, ms: u64, bytes: u64) -> Option<u64> {
        if self.0.back().is_some_and(|(_, last)| *last > bytes) {
            // The transfer restarted.
            self.0.clear();
        }
        self.0.push_back((ms, bytes));
        while self.0.len() > 2 && self.0.front().is_some_and(|(first, _)| first + WINDOW_MS < ms) {
            self.0.pop_front();
        }
        let (first_ms, first_bytes) = *self.0.front()?;
        let passed = ms.checked_sub(first_ms).filter(|passed| *passed > 0)?;
        Some((bytes - first_bytes).saturating_mul(1000) / passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_covers_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.at(0, 0), None);
        assert_eq!(rate.at(1000, 500), Some(500));
        assert_eq!(rate.at(10_000, 500), Some(0));
        assert_eq!(rate.at(11_000, 2500), Some(2000));
        assert_eq!(rate.at(11_000, 10), None);
    }
}
