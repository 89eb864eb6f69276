//! Records operations on one subject, before they start and when they end.

use std::sync::Arc;

use banger_api::hint;
use banger_api::operation::{OpState, Subject, VmTag};
use banger_api::{ApiError, ErrorCode};

use crate::ops::Op;
use crate::shared::Shared;
use crate::store::{Durability, OpRecord, Write};

/// Number of random ids that are tried for a new operation; an id in use is unlikely.
const ID_TRIES: u32 = 8;

/// Records operations on one subject.
pub struct OpBook {
    /// State shared by all operations.
    pub shared: Arc<Shared>,
    /// Their subject.
    pub subject: Subject,
}

/// An operation that runs even if the store failed to record it.
pub struct InternalOp {
    /// The operation.
    pub op: Arc<Op>,
    /// Writes for the next commit of its work.
    pub unsaved: Vec<Write>,
}

impl OpBook {
    /// Records operations on a VM.
    pub fn of_vm(shared: &Arc<Shared>, vm: VmTag) -> Self {
        Self { shared: shared.clone(), subject: Subject::Vm(vm) }
    }

    /// Records a new operation.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(&self, kind: &str, durability: Durability) -> Result<Arc<Op>, ApiError> {
        self.open_with(kind, durability, |_| None).await
    }

    /// Records a new operation, with one more write in the same commit.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open_with(
        &self,
        kind: &str,
        durability: Durability,
        with: impl Fn(&Op) -> Option<Write>,
    ) -> Result<Arc<Op>, ApiError> {
        let _pending = self.shared.ops.announce_pending();
        for _ in 0..ID_TRIES {
            let op = self.shared.new_op(kind, &self.subject);
            let writes = std::iter::once(self.add(&op)).chain(with(&op)).collect();
            match self.shared.store.commit(writes, durability).await {
                Ok(()) => {
                    self.announce(&op);
                    return Ok(op);
                }
                // An earlier operation has this id.
                Err(error) if error.code == ErrorCode::InUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::new(ErrorCode::Internal, "no id is left for an operation"))
    }

    /// A new operation for work that must be done even if the store fails: it frees disk space, or
    /// follows from an event.
    pub async fn open_best_effort(&self, kind: &str) -> InternalOp {
        match self.open(kind, Durability::Process).await {
            Ok(op) => InternalOp { op, unsaved: Vec::new() },
            Err(error) => {
                tracing::error!(kind, error = %error, causes = ?error.causes, "store");
                let op = self.shared.new_op(kind, &self.subject);
                self.announce(&op);
                let unsaved = vec![self.add(&op)];
                InternalOp { op, unsaved }
            }
        }
    }

    fn announce(&self, op: &Arc<Op>) {
        let (id, kind) = (&op.id, &op.kind);
        match &op.subject {
            Subject::Vm(vm) => tracing::info!(
                parent: &op.span, op = %id, kind, vm = %vm.id, vm_name = %vm.name, "operation"
            ),
            subject => tracing::info!(parent: &op.span, op = %id, kind, %subject, "operation"),
        }
        self.shared.ops.add(op.clone());
    }

    fn add(&self, op: &Op) -> Write {
        Write::AddOp(OpRecord {
            id: op.id.clone(),
            kind: op.kind.clone(),
            subject: op.subject.clone(),
            state: OpState::Running,
            error: None,
            made: None,
            started_unix_ms: self.shared.drivers.host.now_unix_ms(),
            trace: op.trace.clone(),
        })
    }

    /// Ends an operation, in the store first.
    pub async fn end(&self, op: &Op, result: Result<Option<String>, ApiError>) {
        self.end_with(op, result, Vec::new()).await;
    }

    /// Ends an operation, and commits its unsaved writes.
    pub async fn end_with(
        &self,
        op: &Op,
        result: Result<Option<String>, ApiError>,
        mut writes: Vec<Write>,
    ) {
        let result = match result {
            Err(error) => Err(self.shared.explained(error).await),
            done => done,
        };
        if let Err(error) = &result {
            let hints = hint::to_json(&error.hints);
            tracing::warn!(
                op = %op.id, kind = op.kind, error = %error, causes = ?error.causes, hints,
                "failed"
            );
        }
        let result = result.map_err(|error| error.in_operation(&op.id));
        writes.push(Write::EndOp { op: op.id.clone(), result: result.clone() });
        if let Err(error) = self.shared.store.commit(writes, Durability::Process).await {
            tracing::error!(op = %op.id, error = %error, "store");
        }
        op.end(result);
    }
}
