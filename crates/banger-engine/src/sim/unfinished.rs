//! Unfinished files of simulated fetches.

use std::time::Duration;

use banger_api::images::spare_name;
use banger_api::{ApiError, ErrorCode};

use super::images::{MIB, REPLACED};
use super::{GuestBehavior, Sim};
use crate::drivers::Progress;

/// Interval at which a fetch that never ends checks for a cancel.
const CANCEL_CHECK: Duration = Duration::from_millis(10);

impl Sim {
    /// Removes an unfinished file at the end of its operation.
    pub(super) fn finished(&self, file: &str) {
        self.remove_unfinished(|unfinished| unfinished == file);
        self.inner().in_progress.remove(file);
    }

    /// Gives a name to an object. An image whose only name this was gets its spare name.
    pub(super) fn publish(&self, key: &str, id: &str) {
        let mut inner = self.inner();
        let fetched = &mut inner.world.fetched;
        let old = fetched.insert(key.into(), id.into()).filter(|old| old != id);
        if let (Some(old), Some(name)) = (old, key.strip_prefix("image:"))
            && !fetched.iter().any(|(key, id)| key.starts_with("image:") && *id == old)
        {
            fetched.insert(format!("image:{}", spare_name(name, &old)), old.clone());
            fetched.insert(format!("{REPLACED}{name}"), old);
        }
        (self.sink)(&inner.world, &[]);
    }

    /// Creates an unfinished file.
    pub(super) fn begin(&self, key: &str) -> String {
        let mut inner = self.inner();
        inner.world.spawned += 1;
        let file = format!("{key}#{}", inner.world.spawned);
        inner.in_progress.insert(file.clone());
        inner.world.unfinished.insert(file.clone());
        (self.sink)(&inner.world, &[]);
        file
    }

    pub(super) async fn receive(&self, key: &str, progress: &dyn Progress) -> Result<(), ApiError> {
        for done in [0, 32, 64] {
            progress.bytes(done * MIB, Some(64 * MIB));
        }
        let name = key.split_once(':').map_or(key, |(_, name)| name);
        while self.behavior_of(name) == GuestBehavior::Silent && !progress.cancelled() {
            tokio::time::sleep(CANCEL_CHECK).await;
        }
        if progress.cancelled() {
            return Err(ApiError::new(ErrorCode::Cancelled, "the fetch was cancelled"));
        }
        Ok(())
    }

    /// Removes unfinished files; returns their number.
    pub(super) fn remove_unfinished(&self, wanted: impl Fn(&String) -> bool) -> u64 {
        let mut inner = self.inner();
        let before = inner.world.unfinished.len();
        inner.world.unfinished.retain(|file| !wanted(file));
        let removed = before - inner.world.unfinished.len();
        if removed > 0 {
            (self.sink)(&inner.world, &[]);
        }
        removed as u64
    }
}
