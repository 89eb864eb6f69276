//! Automatic start: a value of the VM that [`crate::autostart`] reads when the daemon starts. It
//! has no effect on a run, so a change is complete once it is on record.

use crate::capability::{Capability, Change};

/// Automatic start.
pub const CAPABILITY: Capability = Capability {
    name: "autostart",
    plan: None,
    change: Some(|old, new, run| match run {
        _ if old.autostart == new.autostart => Change::None,
        Some(_) => Change::Live,
        None => Change::NextStart,
    }),
    live: Some(|run, new| run.autostart = new.autostart),
    steps: &[],
};
