//! Queries about operations: in progress, ended, or interrupted with an earlier daemon.

use std::sync::Arc;

use banger_api::operation::OperationView;
use banger_api::{ApiError, ErrorCode, OpId};

use crate::engine::Engine;
use crate::image_ops::LogProgress;
use crate::ops::Op;
use crate::recovery;
use crate::store::{Durability, OpRecord, Write};
use crate::view;

pub(crate) fn no_operation(id: &OpId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no operation `{id}`"))
}

impl Engine {
    /// An operation in progress or one that ended recently.
    pub fn follow(&self, id: &OpId) -> Option<Arc<Op>> {
        self.shared.ops.get(id)
    }

    /// An operation, also an ended one.
    ///
    /// # Errors
    /// Not found, or the store cannot be read.
    pub async fn operation(&self, id: &OpId) -> Result<OperationView, ApiError> {
        match self.shared.store.operation(id).await? {
            Some(record) => Ok(self.shown(record)),
            None => match self.shared.ops.get(id) {
                Some(op) => Ok(view::live_operation(&op, self.shared.drivers.host.now_unix_ms())),
                None => Err(no_operation(id)),
            },
        }
    }

    /// The newest operations.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn operations(&self, limit: u32) -> Result<Vec<OperationView>, ApiError> {
        let records = self.shared.store.operations(limit).await?;
        Ok(records.into_iter().map(|record| self.shown(record)).collect())
    }

    fn shown(&self, record: OpRecord) -> OperationView {
        let live = self.shared.ops.get(&record.id).is_some();
        view::operation(record, live)
    }

    /// Number of operations that have not ended.
    pub fn live_operations(&self) -> usize {
        self.shared.ops.live()
    }

    /// Resolves when no operation is in progress or pending.
    pub async fn idle(&self) {
        self.shared.ops.idle().await;
    }

    /// Removes unfinished files of operations on images and kernels that an earlier daemon left
    /// open, completes the moves of names, then ends these operations on record. If this daemon
    /// ends first, the next one repeats it.
    pub(crate) fn clean_images(&self, interrupted: Vec<OpRecord>) {
        let Some(engine) = self.arc() else { return };
        let shared = self.shared.clone();
        let pending = shared.ops.announce_pending();
        tokio::spawn(async move {
            let cleaned = shared.drivers.images.clean().await;
            match &cleaned {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(bytes, "removed unfinished images and kernels"),
                Err(error) => {
                    let causes = &error.causes;
                    tracing::error!(error = %error, ?causes, "unfinished images and kernels");
                }
            }
            engine.settle_replaced(&LogProgress).await;
            if interrupted.iter().any(|op| op.kind == "register_image")
                && let Err(error) = engine.delete_kernels_without_images().await
            {
                // A prune of kernels deletes them.
                tracing::warn!(error = %error, causes = ?error.causes, "kernels without images");
            }
            let ends = interrupted.iter().map(|op| {
                let mut error = recovery::interrupted(&op.id);
                if let Err(left) = &cleaned {
                    error.causes.push(format!("its unfinished files are left: {left}"));
                    error.causes.extend(left.causes.iter().cloned());
                }
                Write::EndOp { op: op.id.clone(), result: Err(error) }
            });
            if let Err(error) = shared.store.commit(ends.collect(), Durability::Process).await {
                tracing::error!(error = %error, causes = ?error.causes, "store");
            }
            drop(pending);
        });
    }
}
