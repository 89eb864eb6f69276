//! Operations in memory: their events, and the clients that follow them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use banger_api::events::OperationNow;
use banger_api::operation::{OpEvent, OpEventKind, OpState, Subject};
use banger_api::trace::TraceId;
use banger_api::{ApiError, OpId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::drivers::Progress;
use crate::interrupt::Canceller;
use crate::op_counts::{OpCounts, Tally};
use crate::op_news::OpNews;
pub use crate::op_stages::Stages;
use crate::trace;

/// Maximum number of stored events per operation; further ones except the last are dropped.
const MAX_EVENTS: usize = 10_000;
/// Number of ended operations whose events are kept.
const MAX_ENDED: usize = 256;

/// A live or recently ended operation.
pub struct Op {
    /// Its id.
    pub id: OpId,
    /// `create`, `start`, …
    pub kind: String,
    /// Its subject.
    pub subject: Subject,
    /// The trace of the request that led to it.
    pub trace: Option<TraceId>,
    /// Its span: its work is in it.
    pub span: tracing::Span,
    began: Instant,
    events: Mutex<Vec<OpEvent>>,
    count: watch::Sender<u64>,
    /// Set when the operation is added to [`Ops`].
    news: OnceLock<Arc<OpNews>>,
    canceller: Canceller,
    cancelled: watch::Receiver<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Op {
    /// A new operation; its first event names the subject.
    pub fn new(id: OpId, kind: impl Into<String>, subject: Subject) -> Arc<Self> {
        let (canceller, cancelled) = Canceller::new();
        let (kind, trace) = (kind.into(), trace::current());
        let shown = trace.as_ref().map(tracing::field::display);
        let span = tracing::info_span!("operation", op = %id, kind, trace = shown);
        let op = Arc::new(Self {
            id,
            kind,
            subject: subject.clone(),
            trace,
            span,
            began: Instant::now(),
            events: Mutex::default(),
            count: watch::Sender::new(0),
            news: OnceLock::new(),
            canceller,
            cancelled,
        });
        op.emit(OpEventKind::Subject { subject });
        op
    }

    /// Adds an event; ignored after the last one.
    pub fn emit(&self, what: OpEventKind) {
        let mut events = locked(&self.events);
        if events.last().is_some_and(|event| event.what.is_last()) {
            return;
        }
        // The last event is stored even if the history is full.
        if events.len() >= MAX_EVENTS && !what.is_last() {
            return;
        }
        let seq = events.len() as u64 + 1;
        let at_ms = self.elapsed_ms();
        let event = OpEvent { seq, at_ms, what };
        if let Some(news) = self.news.get() {
            news.push(self.at(event.clone()));
        }
        events.push(event);
        self.count.send_replace(seq);
    }

    fn at(&self, latest: OpEvent) -> OperationNow {
        let (id, kind, subject) = (self.id.clone(), self.kind.clone(), self.subject.clone());
        OperationNow { id, kind, subject, latest }
    }

    /// Reports its events from now on, and its newest one at once.
    fn report_to(&self, news: &Arc<OpNews>) {
        let events = locked(&self.events);
        if self.news.set(news.clone()).is_ok()
            && let Some(event) = events.last()
        {
            news.push(self.at(event.clone()));
        }
    }

    /// The operation with its newest event.
    pub fn now(&self) -> Option<OperationNow> {
        locked(&self.events).last().map(|event| self.at(event.clone()))
    }

    /// Ends the operation with its result.
    pub fn end(&self, result: Result<Option<String>, ApiError>) {
        let (op, kind, ms) = (&self.id, &self.kind, self.elapsed_ms());
        match &result {
            Ok(_) => tracing::info!(%op, kind, ms, "operation succeeded"),
            Err(_) => tracing::info!(%op, kind, ms, "operation failed"),
        }
        match result {
            Ok(made) => self.emit(OpEventKind::Succeeded { made }),
            Err(error) => self.emit(OpEventKind::Failed { error: error.in_operation(&self.id) }),
        }
    }

    /// Milliseconds since it began.
    pub fn elapsed_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Events after `seq`, without waiting.
    pub fn events_after(&self, seq: u64) -> Vec<OpEvent> {
        let events = locked(&self.events);
        events.get(seq as usize..).unwrap_or_default().to_vec()
    }

    /// Waits for events after `seq` and returns them; empty if the operation has ended already.
    pub async fn next_after(&self, seq: u64) -> Vec<OpEvent> {
        let mut count = self.count.subscribe();
        loop {
            let events = self.events_after(seq);
            if !events.is_empty() || self.has_ended() {
                return events;
            }
            if count.changed().await.is_err() {
                return Vec::new();
            }
        }
    }

    /// The newest event.
    pub fn last_event(&self) -> Option<OpEventKind> {
        locked(&self.events).last().map(|event| event.what.clone())
    }

    /// Whether the last event has been emitted.
    pub fn has_ended(&self) -> bool {
        self.state() != OpState::Running
    }

    /// State now.
    pub fn state(&self) -> OpState {
        match locked(&self.events).last().map(|event| &event.what) {
            Some(OpEventKind::Succeeded { .. }) => OpState::Succeeded,
            Some(OpEventKind::Failed { .. }) => OpState::Failed,
            _ => OpState::Running,
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The operation's own error.
    pub async fn wait(&self) -> Result<Option<String>, ApiError> {
        let mut seen = 0;
        loop {
            for event in self.next_after(seen).await {
                seen = event.seq;
                match event.what {
                    OpEventKind::Succeeded { made } => return Ok(made),
                    OpEventKind::Failed { error } => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// Requests that the operation undoes itself.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Whether a cancel was requested.
    pub fn cancelled(&self) -> watch::Receiver<bool> {
        self.cancelled.clone()
    }
}

/// Emits a driver's progress as events of an operation.
pub struct OpProgress {
    op: Arc<Op>,
    stage: Mutex<(String, u64)>,
    is_announced: AtomicBool,
    step_bytes: u64,
}

impl OpProgress {
    /// Progress of `op`; its first stage is `stage`.
    pub fn new(op: Arc<Op>, stage: &str) -> Self {
        let stage = Mutex::new((stage.into(), 0));
        Self { op, stage, is_announced: AtomicBool::new(false), step_bytes: 1 << 20 }
    }
}

impl Progress for OpProgress {
    fn stage(&self, name: &str) {
        let mut stage = locked(&self.stage);
        // The first stage begins when the work says so, and has a name before.
        let is_first = !self.is_announced.swap(true, Ordering::Relaxed);
        if stage.0 != name || is_first {
            *stage = (name.into(), 0);
            self.op.emit(OpEventKind::StageStarted { stage: name.into() });
        }
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        let mut stage = locked(&self.stage);
        // At most one event per mebibyte, independent of the driver's buffers.
        if done < stage.1.saturating_add(self.step_bytes) && Some(done) != total {
            return;
        }
        stage.1 = done;
        self.op.emit(OpEventKind::Progress { stage: stage.0.clone(), done, total, unit: None });
    }

    fn items(&self, unit: &str, done: u64, total: Option<u64>) {
        let (stage, unit) = (locked(&self.stage).0.clone(), Some(unit.to_owned()));
        self.op.emit(OpEventKind::Progress { stage, done, total, unit });
    }

    fn note(&self, text: &str) {
        self.op.emit(OpEventKind::Note { text: text.into() });
    }

    fn warning(&self, text: &str) {
        self.op.emit(OpEventKind::Warning { text: text.into() });
    }

    fn cancelled(&self) -> bool {
        *self.op.cancelled.borrow()
    }
}

/// All operations in progress and the latest ended ones.
#[derive(Default)]
pub struct Ops {
    inner: Mutex<OpsInner>,
    news: Arc<OpNews>,
    pending: watch::Sender<usize>,
}

/// An operation that is about to start: [`Ops::idle`] waits until this is dropped.
pub struct PendingOp {
    count: watch::Sender<usize>,
}

impl Drop for PendingOp {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

#[derive(Default)]
struct OpsInner {
    all: BTreeMap<OpId, Arc<Op>>,
    order: VecDeque<OpId>,
    /// Ended operations that were removed.
    removed: Tally,
}

impl Ops {
    /// Adds an operation, and removes the oldest ended ones.
    pub fn add(&self, op: Arc<Op>) {
        let mut inner = locked(&self.inner);
        inner.order.push_back(op.id.clone());
        op.report_to(&self.news);
        inner.all.insert(op.id.clone(), op);
        let surplus = inner.order.len().saturating_sub(MAX_ENDED);
        for _ in 0..surplus {
            let Some(oldest) = inner.order.pop_front() else { break };
            match inner.all.get(&oldest) {
                Some(op) if !op.has_ended() => inner.order.push_back(oldest),
                _ => {
                    if let Some(op) = inner.all.remove(&oldest) {
                        inner.removed.count(&op.kind, op.state());
                    }
                }
            }
        }
    }

    /// Announces that an operation is about to be recorded.
    pub fn announce_pending(&self) -> PendingOp {
        self.pending.send_modify(|count| *count += 1);
        PendingOp { count: self.pending.clone() }
    }

    /// Resolves when no operation is in progress or pending.
    pub async fn idle(&self) {
        let mut pending = self.pending.subscribe();
        loop {
            // The sender lives in `self`, so this cannot fail.
            let _ = pending.wait_for(|count| *count == 0).await;
            let live = self.live_ops();
            if live.is_empty() {
                return;
            }
            for op in live {
                tracing::info!(op = %op.id, kind = op.kind, "waiting for its end");
                // Its result is reported to its client.
                let _ = op.wait().await;
            }
        }
    }

    /// The events of all operations.
    pub fn news(&self) -> &OpNews {
        &self.news
    }

    /// One operation.
    pub fn get(&self, id: &OpId) -> Option<Arc<Op>> {
        locked(&self.inner).all.get(id).cloned()
    }

    /// Numbers of operations by kind.
    pub fn counts(&self) -> Vec<OpCounts> {
        let inner = locked(&self.inner);
        let mut tally = inner.removed.clone();
        inner.all.values().for_each(|op| tally.count(&op.kind, op.state()));
        tally.into_counts()
    }

    /// Number of operations that have not ended.
    pub fn live(&self) -> usize {
        locked(&self.inner).all.values().filter(|op| !op.has_ended()).count()
    }

    /// Operations that have not ended.
    pub fn live_ops(&self) -> Vec<Arc<Op>> {
        locked(&self.inner).all.values().filter(|op| !op.has_ended()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> OpEventKind {
        OpEventKind::Note { text: text.into() }
    }

    #[tokio::test]
    async fn a_client_can_resume_after_a_disconnect() {
        let op = Op::new(OpId::from_entropy(1), "start", Subject::Host);
        op.emit(note("one"));
        op.emit(note("two"));
        let first = op.next_after(0).await;
        assert_eq!(first.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
        let later = tokio::spawn({
            let op = op.clone();
            async move { op.next_after(3).await }
        });
        op.end(Ok(None));
        assert!(later.await.unwrap()[0].what.is_last());
        op.emit(note("too late"));
        assert_eq!(op.events_after(0).len(), 4);
        assert!(op.next_after(4).await.is_empty());
    }

    #[test]
    fn a_full_history_keeps_the_last_event() {
        let op = Op::new(OpId::from_entropy(2), "pull", Subject::Host);
        (0..MAX_EVENTS + 5).for_each(|n| op.emit(note(&n.to_string())));
        op.end(Ok(None));
        let events = op.events_after(0);
        assert_eq!(events.len(), MAX_EVENTS + 1);
        assert!(events.last().unwrap().what.is_last());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_waits_for_live_and_pending_operations() {
        let ops = Arc::new(Ops::default());
        ops.idle().await;
        let pending = ops.announce_pending();
        let idle = tokio::spawn({
            let ops = ops.clone();
            async move { ops.idle().await }
        });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!idle.is_finished());
        let op = Op::new(OpId::from_entropy(3), "recover", Subject::Host);
        ops.add(op.clone());
        drop(pending);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!idle.is_finished());
        op.end(Ok(None));
        idle.await.unwrap();
    }

    #[test]
    fn live_operations_are_never_forgotten() {
        let ops = Ops::default();
        let live = Op::new(OpId::from_entropy(0), "start", Subject::Host);
        ops.add(live.clone());
        for n in 1..2 * MAX_ENDED as u64 {
            let op = Op::new(OpId::from_entropy(n), "start", Subject::Host);
            op.end(Ok(None));
            ops.add(op);
        }
        assert!(ops.get(&live.id).is_some());
        assert_eq!(ops.live(), 1);
    }
}
