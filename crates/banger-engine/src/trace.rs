//! The trace that a piece of work belongs to: it follows the work through tasks, so that an
//! operation, its lines in the log and its spans have the id of the request that led to it.

use banger_api::trace::TraceId;
use tracing::{Instrument as _, Span};

tokio::task_local! {
    static CURRENT: TraceId;
}

/// The trace and the span of some work, to pass on to another task.
#[derive(Debug, Clone)]
pub struct Context {
    id: Option<TraceId>,
    span: Span,
}

impl Context {
    /// That of the present task.
    pub fn current() -> Self {
        Self { id: current(), span: Span::current() }
    }

    /// Does work in this context.
    pub async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let work = work.instrument(self.span);
        match self.id {
            Some(id) => CURRENT.scope(id, work).await,
            None => work.await,
        }
    }
}

/// Does work that belongs to this trace.
pub async fn within<T>(id: TraceId, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

/// The trace of the present task.
pub fn current() -> Option<TraceId> {
    CURRENT.try_with(TraceId::clone).ok()
}
