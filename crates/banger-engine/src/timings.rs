//! Distributions of durations since the daemon started, for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use banger_api::events::OperationNow;
use banger_api::operation::OpEventKind;

/// Upper bounds of the buckets, in milliseconds.
pub const BOUNDS_MS: [u64; 13] =
    [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 60_000, 600_000];
/// Maximum number of different names; names of this build are fewer.
const MAX_NAMES: usize = 256;

/// How often durations fell into each bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Number of durations up to each of [`BOUNDS_MS`] and above the one before.
    pub buckets: [u64; BOUNDS_MS.len()],
    /// Number of all durations.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&mut self, us: u64) {
        let bucket = BOUNDS_MS.iter().position(|bound| us <= bound.saturating_mul(1000));
        if let Some(count) = bucket.and_then(|bucket| self.buckets.get_mut(bucket)) {
            *count += 1;
        }
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

/// Histograms by name.
pub type Named = BTreeMap<String, Histogram>;

/// Durations of one daemon.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    /// Stages of operations that succeeded, by name.
    pub stages: Named,
    /// Operations that succeeded, by kind.
    pub operations: Named,
    /// Connections to guest agents, each for one command, file transfer or port.
    pub connections: Histogram,
    /// Commands in guests whose end this daemon saw.
    pub commands: Histogram,
}

/// Counts durations.
#[derive(Debug, Default)]
pub struct Timings(Mutex<Durations>);

impl Timings {
    /// Counts the duration that an operation's event reports, if it reports one.
    pub(crate) fn count(&self, now: &OperationNow) {
        match &now.latest.what {
            OpEventKind::StageDone { stage, ms } => {
                self.update(|all| add(&mut all.stages, stage, *ms));
            }
            OpEventKind::Succeeded { .. } => {
                self.update(|all| add(&mut all.operations, &now.kind, now.latest.at_ms));
            }
            _ => {}
        }
    }

    /// Counts a connection to a guest agent.
    pub fn connected(&self, us: u64) {
        self.update(|all| all.connections.add(us));
    }

    /// Counts a command in a guest.
    pub fn command(&self, us: u64) {
        self.update(|all| all.commands.add(us));
    }

    /// All durations so far.
    pub fn all(&self) -> Durations {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Durations)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn add(named: &mut Named, name: &str, ms: u64) {
    if named.len() < MAX_NAMES || named.contains_key(name) {
        named.entry(name.to_owned()).or_default().add(ms.saturating_mul(1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_in_their_bucket() {
        let mut histogram = Histogram::default();
        for us in [0, 1000, 1001, 600_000_000, 600_000_001] {
            histogram.add(us);
        }
        assert_eq!((histogram.count, histogram.sum_us), (5, 1_200_002_002));
        assert_eq!((histogram.buckets[0], histogram.buckets[1]), (2, 1));
        assert_eq!(histogram.buckets.iter().sum::<u64>(), 4, "the longest is in none");
    }

    #[test]
    fn the_number_of_names_is_limited() {
        let mut named = Named::new();
        (0..=MAX_NAMES).for_each(|number| add(&mut named, &number.to_string(), 1));
        add(&mut named, "0", 1);
        assert_eq!((named.len(), named["0"].count), (MAX_NAMES, 2));
    }
}
