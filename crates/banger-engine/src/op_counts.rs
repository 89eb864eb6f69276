//! Numbers of operations by kind, for metrics.

use std::collections::BTreeMap;

use banger_api::operation::OpState;

/// Numbers of operations of one kind since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// `create`, `start`, …
    pub kind: String,
    /// In progress.
    pub running: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Failed or cancelled.
    pub failed: u64,
}

/// Numbers of operations by kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(BTreeMap<String, OpCounts>);

impl Tally {
    /// Counts an operation.
    pub fn count(&mut self, kind: &str, state: OpState) {
        let counts = self.0.entry(kind.to_owned()).or_default();
        let number = match state {
            OpState::Running => &mut counts.running,
            OpState::Succeeded => &mut counts.succeeded,
            OpState::Failed => &mut counts.failed,
        };
        *number = number.saturating_add(1);
    }

    /// The numbers, sorted by kind.
    pub fn into_counts(self) -> Vec<OpCounts> {
        self.0.into_iter().map(|(kind, counts)| OpCounts { kind, ..counts }).collect()
    }
}
