//! Objects on the host of VMs that are not on record: after the database was removed or replaced by
//! an older copy, or after an undo could not be completed. They are listed, and removed on request,
//! except where they may be the only copy of a disk.

use std::collections::BTreeSet;

use banger_api::doctor::{Kept, Leftover, RemovedLeftover};
use banger_api::operation::Subject;
use banger_api::{ApiError, ErrorCode, Hint, VmId};

use crate::engine::Engine;

/// Kind of the operation that removes leftovers of a VM.
pub const REMOVE: &str = "remove_leftover";
/// Maximum number of leftovers in a list.
const MOST: usize = 1000;

impl Engine {
    /// Leftovers, by id; at most 1000.
    ///
    /// # Errors
    /// The host's.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>, ApiError> {
        let host = &self.shared.drivers.host;
        // Listed before the VMs on record: a VM is recorded before its first object exists.
        let mut found = host.vm_ids().await?;
        let known = self.recorded_ids();
        found.retain(|id| !known.contains(id));
        found.sort();
        found.dedup();
        let mut leftovers = Vec::new();
        for id in found.into_iter().take(MOST) {
            let leftover = host.objects(&id).await?;
            if !leftover.objects.is_empty() || !leftover.processes.is_empty() {
                leftovers.push(leftover);
            }
        }
        Ok(leftovers)
    }

    /// Removes the objects of these VMs. Continues after errors; an absent leftover is no error.
    pub async fn remove_leftovers(&self, ids: Vec<String>) -> Vec<RemovedLeftover> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for id in ids.into_iter().filter(|id| seen.insert(id.clone())) {
            let (removed, error) = match self.remove_leftover(&id).await {
                Ok(removed) => (removed, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            all.push(RemovedLeftover { id, removed, error });
        }
        all
    }

    async fn remove_leftover(&self, id: &str) -> Result<Vec<String>, ApiError> {
        let shown = banger_api::excerpt(id);
        let vm: VmId = id.parse().map_err(|_| {
            ApiError::new(ErrorCode::BadRequest, format!("`{shown}` is not the id of a VM"))
        })?;
        if self.recorded_ids().contains(id) {
            let text = format!("the VM {id} is in the database, so it is no leftover");
            return Err(ApiError::new(ErrorCode::WrongState, text).with_hint(Hint::check(id)));
        }
        let host = &self.shared.drivers.host;
        if !host.vm_ids().await?.iter().any(|found| found == id) {
            return Ok(Vec::new());
        }
        let leftover = host.objects(id).await?;
        if let Some(kept) = leftover.kept() {
            return Err(refusal(&leftover, kept));
        }
        let remove = host.remove_objects(&vm);
        self.recorded(REMOVE, Subject::Host, remove).await?;
        Ok(leftover.objects)
    }

    /// Ids of all VMs on record, also of those whose record cannot be understood.
    fn recorded_ids(&self) -> BTreeSet<String> {
        let ids = self.ids().into_iter().map(|id| id.as_str().to_owned());
        ids.chain(self.unreadable().into_iter().map(|row| row.id)).collect()
    }
}

fn refusal(leftover: &Leftover, kept: Kept) -> ApiError {
    let id = &leftover.id;
    let text = match kept {
        Kept::Foreign => format!("`{id}` is not the id of a VM"),
        Kept::Running => {
            let pids: Vec<String> = leftover.processes.iter().map(u32::to_string).collect();
            format!("the VM {id} runs as process {}", pids.join(", "))
        }
        Kept::Disks => {
            let disks = leftover.disks.join("`, `");
            format!("the VM {id} has disks, which may be the only copy: `{disks}`")
        }
    };
    ApiError::new(ErrorCode::WrongState, text)
}
