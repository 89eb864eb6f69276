//! Deletions that are followed to their end.

use std::time::Duration;

use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, VmId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::follow::{FollowError, Interrupts, OnInterrupt};

/// Time limit for the deletion of all machines of a process at its end; the daemon continues
/// without it.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for deletions, which run at the same time and may take a minute.
///
/// # Errors
/// The first of them, in the order of their ends.
pub async fn all_deleted<F>(deletions: impl IntoIterator<Item = F>) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let mut deletions: JoinSet<_> = deletions.into_iter().collect();
    let all = async {
        let mut first = Ok(());
        while let Some(deleted) = deletions.join_next().await {
            first = first.and(deleted.unwrap_or(Ok(())));
        }
        first
    };
    tokio::time::timeout(END_TIMEOUT, all).await.unwrap_or(Ok(()))
}

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
