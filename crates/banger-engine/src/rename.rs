//! Renaming of VMs. Objects on the host derive from a VM's id, so a new name changes the record
//! only. The DNS server reads the names of VMs for each query; the guest gets its host name when it
//! boots.
//!
//! A name is reserved from the acceptance of a rename until its operation has ended, so that no
//! other VM gets it meanwhile.

use std::sync::{Arc, Weak};

use banger_api::operation::{Accepted, OpEventKind, VmTag};
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, VmId, VmName};

use crate::engine::Engine;
use crate::lists::ListName;
use crate::ops::Op;
use crate::record::{Presence, VmRecord};
use crate::runner::Worker;
use crate::store::Durability;

/// A reserved name.
pub(crate) struct Renaming {
    vm: VmId,
    name: VmName,
    /// Identifies the reservation.
    number: u64,
    /// The operation, once it is on record.
    op: Option<Arc<Op>>,
}

impl Renaming {
    fn has_ended(&self) -> bool {
        self.op.as_ref().is_some_and(|op| op.has_ended())
    }

    /// Whether it keeps a name from all VMs but this one.
    pub(crate) fn keeps(&self, name: &VmName, from: Option<&VmId>) -> bool {
        &self.name == name && Some(&self.vm) != from && !self.has_ended()
    }
}

/// Removes a reservation whose request was refused.
struct Reserved {
    engine: Weak<Engine>,
    number: u64,
}

impl Reserved {
    /// From now on the reservation lasts as long as the operation.
    fn set_operation(&self, op: Arc<Op>) {
        let Some(engine) = self.engine.upgrade() else { return };
        let mut registry = engine.registry();
        let mut renamings = registry.renamings.iter_mut();
        if let Some(own) = renamings.find(|one| one.number == self.number) {
            own.op = Some(op);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else { return };
        engine.registry().renamings.retain(|one| one.number != self.number || one.op.is_some());
    }
}

impl Engine {
    /// Requests that a VM gets another name.
    ///
    /// # Errors
    /// Not found, a name in use, refused, or the store fails.
    pub(crate) async fn rename(
        &self,
        reference: &str,
        name: &VmName,
    ) -> Result<Accepted, ApiError> {
        let handle = self.handle(reference)?;
        let plan = handle.published.borrow().record.plan.clone();
        let Some(reserved) = self.reserve_for_rename(&plan.id, name)? else {
            let vm = Some(VmTag { id: plan.id, name: plan.name });
            return Ok(Accepted { operation: None, vm, warnings: Vec::new() });
        };
        let accepted = self.ask(&handle, VmAction::Rename { name: name.clone() }).await?;
        if let Some(op) = accepted.operation.as_ref().and_then(|id| self.follow(id)) {
            reserved.set_operation(op);
        }
        Ok(accepted)
    }

    /// Reserves a name; `None` if the VM has it and no other rename of it is in progress.
    fn reserve_for_rename(&self, vm: &VmId, name: &VmName) -> Result<Option<Reserved>, ApiError> {
        let unreadable = self.unreadable_tags();
        let mut registry = self.registry();
        registry.renamings.retain(|one| !one.has_ended());
        if registry.has_name(name, &unreadable, Some(vm)) {
            drop(registry);
            return Err(self.name_taken(name));
        }
        let has_it = registry.vms.get(vm).is_some_and(|handle| {
            let published = handle.published.borrow();
            &published.record.plan.name == name
        });
        if has_it && !registry.renamings.iter().any(|one| &one.vm == vm) {
            return Ok(None);
        }
        registry.renamings_made += 1;
        let number = registry.renamings_made;
        let renaming = Renaming { vm: vm.clone(), name: name.clone(), number, op: None };
        registry.renamings.push(renaming);
        Ok(Some(Reserved { engine: self.weak(), number }))
    }
}

impl Worker {
    /// Gives the VM another name.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rename(&mut self, name: &VmName) -> Result<Presence, ApiError> {
        if self.record.plan.name == *name {
            return Ok(Presence::Exists);
        }
        let renamed = |record: &mut VmRecord| {
            record.plan.name = name.clone();
            Ok(())
        };
        self.crash(ListName::Create, "rename_commit", "before");
        self.decide(Durability::Process, renamed).await.map_err(|error| match error.code {
            ErrorCode::NameTaken => error,
            code => {
                let text = format!("`{}` could not be renamed", self.record.plan.name);
                let mut failed = ApiError::new(code, text);
                failed.causes = [vec![error.message], error.causes].concat();
                failed.hints = error.hints;
                failed
            }
        })?;
        self.crash(ListName::Create, "rename_commit", "after");
        if self.record.run.is_some() {
            let text = format!("the host name in the guest changes at the next start of `{name}`");
            self.op.emit(OpEventKind::Note { text });
        }
        Ok(Presence::Exists)
    }
}
