//! Stages of operations.

use std::sync::Arc;

use banger_api::operation::OpEventKind;
use tokio::time::Instant;

use crate::ops::Op;

/// A stage in progress.
struct Open {
    stage: String,
    began: Instant,
    /// From its beginning to its end.
    _span: tracing::Span,
}

/// Reports the stages of an operation: one is open at a time.
pub struct Stages {
    op: Arc<Op>,
    open: Option<Open>,
    done: Vec<banger_api::vm::Timing>,
}

impl Stages {
    /// No stage yet.
    pub fn new(op: Arc<Op>) -> Self {
        Self { op, open: None, done: Vec::new() }
    }

    /// Enters a stage; ends the open one if it is another.
    pub fn enter(&mut self, stage: &str) {
        if self.open.as_ref().is_some_and(|open| open.stage == stage) {
            return;
        }
        self.finish();
        tracing::debug!(op = %self.op.id, stage, "stage");
        self.op.emit(OpEventKind::StageStarted { stage: stage.into() });
        let span = tracing::info_span!(parent: &self.op.span, "stage", stage);
        self.open = Some(Open { stage: stage.into(), began: Instant::now(), _span: span });
    }

    /// Ends the open stage successfully.
    pub fn finish(&mut self) {
        if let Some(Open { stage, began, .. }) = self.open.take() {
            let ms = began.elapsed().as_millis() as u64;
            tracing::info!(op = %self.op.id, stage, ms, "stage done");
            self.op.emit(OpEventKind::StageDone { stage: stage.clone(), ms });
            self.done.push(banger_api::vm::Timing { name: stage, ms });
        }
    }

    /// Leaves the open stage without reporting it as done.
    pub fn abandon(&mut self) {
        self.open = None;
    }

    /// Stages done since the last call.
    pub fn take_done(&mut self) -> Vec<banger_api::vm::Timing> {
        std::mem::take(&mut self.done)
    }
}
