//! Labels: keys with values for the user's own purposes. They have no effect on the host or the
//! guest, so a change takes effect at once.

use crate::capability::{Capability, Change};

/// Labels.
pub const CAPABILITY: Capability = Capability {
    name: "labels",
    plan: None,
    change: Some(|old, new, run| match run {
        _ if old.labels == new.labels => Change::None,
        Some(_) => Change::Live,
        None => Change::NextStart,
    }),
    live: Some(|run, new| run.labels.clone_from(&new.labels)),
    steps: &[],
};
