//! Secrets of VMs, which are kept on the host outside of the store.

use banger_api::ApiError;
use banger_api::opencode::{OpencodeAccess, PORT, USER, VmSecrets};

use crate::capabilities::opencode;
use crate::engine::Engine;

impl Engine {
    /// The secrets of a VM in any state.
    ///
    /// # Errors
    /// Not found, or ambiguous; a secret that cannot be read.
    pub async fn secrets(&self, reference: &str) -> Result<VmSecrets, ApiError> {
        let plan = self.handle(reference)?.published.borrow().record.plan.clone();
        if !opencode::is_served(&plan) {
            return Ok(VmSecrets::default());
        }
        let password = self.shared.drivers.host.opencode_password(&plan).await?;
        let username = USER.to_owned();
        Ok(VmSecrets { opencode: Some(OpencodeAccess { port: PORT, username, password }) })
    }
}
