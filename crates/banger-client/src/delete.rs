//! Deletions that are followed to their end.

use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, VmId};
use tokio::sync::watch;

use crate::client::Client;
use crate::follow::{FollowError, Interrupts, OnInterrupt};

impl Client {
    /// Deletes a VM in any state and waits until it is gone; one that is gone is not an error.
    ///
    /// # Errors
    /// The deletion's, or the daemon's.
    pub async fn delete_to_end(&self, vm: &VmId) -> Result<(), ApiError> {
        let accepted = match self.act(vm.as_str(), VmAction::Delete { force: true }).await {
            Ok(accepted) => accepted,
            Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (_never, interrupts) = watch::channel(0);
        let interrupts = Interrupts::new(interrupts);
        match self.follow_to_end(&accepted, interrupts, OnInterrupt::Ignore, &mut ()).await {
            Ok(_) | Err(FollowError::WaitEnded(_)) => Ok(()),
            Err(FollowError::Failed(error) | FollowError::Cancelled(error)) => match error.code {
                ErrorCode::NotFound => Ok(()),
                _ => Err(*error),
            },
        }
    }
}
