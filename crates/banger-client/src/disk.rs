//! Calls about the host's disk.

use banger_api::disk::{DiskPrune, DiskPruned, DiskUsage};
use banger_api::{ApiError, routes};

use crate::call::Idempotency;
use crate::client::Client;
use crate::http::Call;

impl Client {
    /// What is stored on the host's disk.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn disk_usage(&self) -> Result<DiskUsage, ApiError> {
        self.ask(Call::get(routes::DISK), Idempotency::Idempotent).await
    }

    /// Removes stored objects that nothing uses.
    ///
    /// # Errors
    /// The daemon's; those of single objects are in the answer.
    pub async fn prune_disk(&self, prune: &DiskPrune) -> Result<DiskPruned, ApiError> {
        self.ask(Call::post(routes::DISK_PRUNES, prune)?, Idempotency::NotIdempotent).await
    }
}
