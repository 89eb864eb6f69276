//! The machines of a session, and their end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, VmId};
use banger_client::{Client, Hold, all_deleted};

/// Machines that end with this process.
#[derive(Default)]
pub struct Session(Mutex<Held>);

#[derive(Default)]
struct Held {
    ended: bool,
    machines: BTreeMap<VmId, (VmTag, Hold)>,
}

impl Session {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a machine that was just accepted. After the end of the session the hold is dropped,
    /// with which the daemon deletes the machine.
    ///
    /// # Errors
    /// The daemon's. A machine whose creation has failed already is not held: its operation has
    /// the reason.
    pub async fn hold(&self, client: &Client, vm: &VmTag) -> Result<(), ApiError> {
        let hold = match client.hold(&vm.id).await {
            Ok(hold) => hold,
            Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut held = self.held();
        if !held.ended {
            held.machines.insert(vm.id.clone(), (vm.clone(), hold));
        }
        Ok(())
    }

    /// Whether this session made a machine that ends with it.
    pub fn contains(&self, vm: &VmId) -> bool {
        self.held().machines.contains_key(vm)
    }

    /// Forgets a machine that was deleted.
    pub fn forget(&self, vm: &VmId) {
        self.held().machines.remove(vm);
    }

    /// Deletes all machines and waits until they are gone.
    ///
    /// # Errors
    /// The first of the deletions.
    pub async fn end(&self, client: &Client) -> Result<(), ApiError> {
        let machines = {
            let mut held = self.held();
            held.ended = true;
            std::mem::take(&mut held.machines)
        };
        let deletions = machines.into_values().map(|(vm, hold)| {
            let client = client.clone();
            async move {
                let deleted = client.delete_to_end(&vm.id).await;
                hold.release().await;
                deleted
            }
        });
        all_deleted(deletions).await
    }
}
