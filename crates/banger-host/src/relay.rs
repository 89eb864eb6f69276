//! Progress of the stores as progress of operations.

use std::sync::Arc;

use banger_engine::drivers::Progress;
use banger_image::fetch;

/// Passes the progress of the stores on to the operation: their stages become notes within ours.
pub(crate) struct Relay {
    pub(crate) progress: Arc<dyn Progress>,
}

impl fetch::Progress for Relay {
    fn stage(&self, name: &str) {
        self.progress.note(name);
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        self.progress.bytes(done, total);
    }

    fn items(&self, unit: &str, done: u64, total: Option<u64>) {
        self.progress.items(unit, done, total);
    }

    fn log(&self, line: &str) {
        tracing::debug!(line, "fetch");
    }

    fn warning(&self, line: &str) {
        tracing::warn!(line, "fetch");
        self.progress.warning(line);
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}
