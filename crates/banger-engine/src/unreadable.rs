//! VMs whose row cannot be parsed: they are listed, and can be set aside, which frees their name
//! and keeps the row.

use std::sync::PoisonError;

use banger_api::operation::{Accepted, OpEventKind, VmTag};
use banger_api::vm::{VmAction, VmState, VmSummary};
use banger_api::{ApiError, ErrorCode, Hint, VmId};

use crate::drivers::Stray;
use crate::engine::Engine;
use crate::op_book::{InternalOp, OpBook};
use crate::store::{Durability, Unreadable, Write};

/// The error of every request about such a VM.
pub(crate) fn explain(row: &Unreadable) -> ApiError {
    let text = format!("the record of `{}` cannot be understood", row.name);
    let mut error = ApiError::new(ErrorCode::Corrupt, text);
    error.hints = advice(row);
    error.causes.push(row.why.clone());
    error
}

/// Hints about such a VM. A forced delete sets the record aside and leaves the disks.
pub fn advice(row: &Unreadable) -> Vec<Hint> {
    let delete = Hint::ask(&row.name, VmAction::Delete { force: true });
    vec![Hint::UseOtherBuild, delete]
}

impl Engine {
    /// VMs without a run on record whose VMM is alive.
    pub async fn strays(&self) -> Vec<(VmTag, Stray)> {
        let mut strays = Vec::new();
        for vm in self.all().into_iter().filter(|vm| vm.record.run.is_none()) {
            let plan = &vm.record.plan;
            let Ok(vmm) = self.shared.drivers.vmm(plan) else { continue };
            // The run of a start in progress is about to be recorded.
            if vm.operation.is_some() {
                continue;
            }
            if let Some(stray) = vmm.stray(plan).await {
                strays.push((vm.record.tag(), stray));
            }
        }
        strays
    }

    /// The rows that cannot be parsed.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Id and name of those rows, if both are valid.
    pub(crate) fn unreadable_tags(&self) -> Vec<VmTag> {
        let tag = |row: Unreadable| {
            Some(VmTag { id: row.id.parse().ok()?, name: row.name.parse().ok()? })
        };
        self.unreadable().into_iter().filter_map(tag).collect()
    }

    pub(crate) fn unreadable_row(&self, id: &VmId) -> Option<Unreadable> {
        self.unreadable().into_iter().find(|row| row.id == id.as_str())
    }

    /// Their entries in the list of VMs: state `broken`, with unknown values.
    pub(crate) fn unreadable_summaries(&self) -> Vec<VmSummary> {
        let summary = |vm: VmTag| {
            let row = self.unreadable_row(&vm.id)?;
            Some(VmSummary {
                opencode: false,
                problem: Some(format!("{}: {}", explain(&row), row.why)),
                id: vm.id,
                name: vm.name,
                state: VmState::Broken,
                image: String::new(),
                vcpus: None,
                memory_mib: None,
                ip: None,
                created_at: String::new(),
                disk: None,
                operation: None,
                publish: Vec::new(),
                labels: Default::default(),
            })
        };
        self.unreadable_tags().into_iter().filter_map(summary).collect()
    }

    /// Sets such a row aside. The VM's objects on the host are unknown, so they are left.
    pub(crate) async fn set_aside(&self, row: Unreadable) -> Result<Accepted, ApiError> {
        let vm = VmTag {
            id: row.id.parse().map_err(|_| explain(&row))?,
            name: row.name.parse().map_err(|_| explain(&row))?,
        };
        let book = OpBook::of_vm(&self.shared, vm.clone());
        let InternalOp { op, unsaved } = book.open_best_effort("delete").await;
        let mut writes = unsaved;
        writes.push(Write::SetAside(row.id.clone()));
        let set_aside = self.shared.store.commit(writes, Durability::Power).await;
        if set_aside.is_ok() {
            let mut rows = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
            rows.retain(|other| other.id != row.id);
        }
        let text = format!(
            "the record of `{}` is kept in the table `set_aside` of the database; `banger doctor` \
             names the folder with its disks",
            row.name
        );
        op.emit(OpEventKind::Warning { text });
        book.end(&op, set_aside.map(|()| None)).await;
        self.shared.changed();
        Ok(Accepted { operation: Some(op.id.clone()), vm: Some(vm), warnings: Vec::new() })
    }
}
