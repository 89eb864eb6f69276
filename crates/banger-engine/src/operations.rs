//! Operations as others see them: live, ended, or left open by an earlier daemon.

use std::sync::Arc;

use banger_api::operation::OperationView;
use banger_api::{ApiError, ErrorCode, OpId};

use crate::engine::Engine;
use crate::ops::Op;
use crate::recovery;
use crate::store::{Durability, OpRecord, Write};
use crate::view;

pub(crate) fn no_operation(id: &OpId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no operation `{id}`"))
}

impl Engine {
    /// A live or recently ended operation, to be followed.
    pub fn follow(&self, id: &OpId) -> Option<Arc<Op>> {
        self.shared.ops.get(id)
    }

    /// An operation, also long after it ended.
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

    /// Resolves when no operation is in progress and none is about to begin.
    pub async fn quiet(&self) {
        self.shared.ops.quiet().await;
    }

    /// Removes what operations on images and kernels left unfinished when their daemon ended, then
    /// ends them on record. A daemon that ends before finds them open again.
    pub(crate) fn clean_images(&self, interrupted: Vec<OpRecord>) {
        let shared = self.shared.clone();
        let beginning = shared.ops.beginning();
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
            drop(beginning);
        });
    }
}
