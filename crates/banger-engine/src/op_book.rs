//! The operations of one VM as they are put on record and ended.

use std::sync::Arc;

use banger_api::operation::{OpState, VmTag};
use banger_api::{ApiError, ErrorCode};

use crate::ops::Op;
use crate::shared::Shared;
use crate::store::{Durability, OpRecord, Write};

/// Ids that are tried for a new operation: among a thousand, one in a million is taken.
const ID_TRIES: u32 = 8;

/// Puts operations of a VM on record.
pub struct OpBook {
    /// Shared things.
    pub shared: Arc<Shared>,
    /// The VM.
    pub vm: VmTag,
}

/// An operation that nobody asked for, and its row where the store did not take it yet.
pub struct InternalOp {
    /// The operation.
    pub op: Arc<Op>,
    /// Goes with the first commit of its work.
    pub unsaved: Vec<Write>,
}

impl OpBook {
    /// A new operation, on record.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(&self, kind: &str, durability: Durability) -> Result<Arc<Op>, ApiError> {
        let _beginning = self.shared.ops.beginning();
        for _ in 0..ID_TRIES {
            let op = self.shared.new_op(kind);
            match self.shared.store.commit(vec![self.add(&op)], durability).await {
                Ok(()) => {
                    self.announce(&op);
                    return Ok(op);
                }
                // An operation of long ago has this id.
                Err(error) if error.code == ErrorCode::InUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::new(ErrorCode::Internal, "no id is left for an operation"))
    }

    /// A new operation for work that a store that fails does not keep from being done.
    pub async fn open_anyway(&self, kind: &str) -> InternalOp {
        match self.open(kind, Durability::Process).await {
            Ok(op) => InternalOp { op, unsaved: Vec::new() },
            Err(error) => {
                tracing::error!(kind, error = %error, causes = ?error.causes, "store");
                let op = self.shared.new_op(kind);
                self.announce(&op);
                let unsaved = vec![self.add(&op)];
                InternalOp { op, unsaved }
            }
        }
    }

    fn announce(&self, op: &Arc<Op>) {
        op.about(self.vm.clone());
        self.shared.ops.add(op.clone());
    }

    fn add(&self, op: &Op) -> Write {
        Write::AddOp(OpRecord {
            id: op.id.clone(),
            kind: op.kind.clone(),
            vm: self.vm.id.clone(),
            vm_name: self.vm.name.clone(),
            state: OpState::Running,
            error: None,
            started_unix_ms: self.shared.drivers.host.now_unix_ms(),
        })
    }

    /// Ends an operation, on record first.
    pub async fn end(&self, op: &Op, result: Result<Option<String>, ApiError>) {
        if let Err(error) = &result {
            tracing::warn!(
                op = %op.id, kind = op.kind, error = %error, causes = ?error.causes, "failed"
            );
        }
        let error = result.as_ref().err().cloned().map(|error| error.in_operation(&op.id));
        let end = Write::EndOp { op: op.id.clone(), error };
        if let Err(error) = self.shared.store.commit(vec![end], Durability::Process).await {
            tracing::error!(op = %op.id, error = %error, "store");
        }
        op.end(result);
    }
}
