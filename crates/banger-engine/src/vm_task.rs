//! The task that owns a VM: it receives requests while at most one operation works on the VM.
//!
//! Requests arrive in a bounded mailbox; kills and forced deletes in a second channel with higher
//! priority. The record is published through one watch channel, with a generation number.

mod closing;
mod lending;
mod requests;
mod wish;

pub use lending::Lent;

use std::sync::Arc;

use banger_api::operation::{Accepted, CancelEffect};
use banger_api::vm::{Lifetime, VmAction, VmState};
use banger_api::{ApiError, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::boot_watch;
use crate::drivers::ExitStory;
use crate::op_book::{InternalOp, OpBook};
use crate::ops::{Op, PendingOp};
use crate::queue::{self, Answer, Queued, RequestQueue};
use crate::record::{Existence, Inspect, Presence, VmRecord};
use crate::recovery::Action;
use crate::refusals;
use crate::runner::{Signals, Worker};
use crate::shared::{Published, Shared};
use crate::store::{Durability, Write};
use crate::trace::Context;
use crate::vm_jobs::ThenStart;
use crate::work::Work;

/// Capacity of the mailbox.
pub const MAILBOX: usize = 32;

/// A message to the task.
pub enum Message {
    /// A request of a client.
    Request {
        /// The action.
        action: VmAction,
        /// The trace that it belongs to.
        context: Context,
        /// Receives the answer.
        reply: oneshot::Sender<Result<Accepted, ApiError>>,
    },
    /// A request to cancel an operation on this VM.
    Cancel {
        /// The operation.
        op: Arc<Op>,
        /// Receives the answer.
        reply: oneshot::Sender<Result<CancelEffect, ApiError>>,
    },
    /// A request of an operation on an image to read the root disk.
    Lend {
        /// The operation.
        op: Arc<Op>,
        /// Receives the VM.
        reply: oneshot::Sender<Result<Lent, ApiError>>,
    },
    /// A request of a new daemon to start the VM if its user wants it to run.
    Autostart {
        /// Receives the operation, or `None` if the VM is not to be started.
        reply: oneshot::Sender<Option<Arc<Op>>>,
    },
}

/// The first work of a task.
pub enum InitialWork {
    /// A create whose operation and VM are on record.
    Create(Arc<Op>, ThenStart),
    /// The decision of recovery.
    Recover(Action),
}

/// Access to the task of a VM.
#[derive(Clone)]
pub struct VmHandle {
    /// Requests.
    pub mailbox: mpsc::Sender<Message>,
    /// Requests with higher priority: kills, forced deletes, cancels.
    pub urgent: mpsc::Sender<Message>,
    /// The published state of the VM.
    pub published: watch::Receiver<Published>,
}

struct JobEnd {
    record: VmRecord,
    exit: watch::Receiver<Option<ExitStory>>,
    result: Result<Presence, ApiError>,
}

struct Job {
    op: Arc<Op>,
    handle: JoinHandle<JobEnd>,
}

/// Called when the VM no longer exists.
type OnRemoved = Box<dyn FnOnce() + Send + Sync>;

struct VmTask {
    shared: Arc<Shared>,
    book: OpBook,
    record: VmRecord,
    publisher: watch::Sender<Published>,
    queue: RequestQueue,
    exit: watch::Receiver<Option<ExitStory>>,
    hurry: watch::Sender<bool>,
    job: Option<Job>,
    /// The operation that reads the root disk. Meanwhile no work begins.
    lending: Option<lending::Lending>,
    /// Whether the automatic delete after the end of this run was attempted.
    delete_tried: bool,
    on_removed: Option<OnRemoved>,
    /// Boot id of the guest whose boot is being watched.
    followed: Option<String>,
    /// Whether a user stopped a VM that was stopped already.
    stop_wanted: bool,
    /// Receives the automatic start, which is decided when no operation is in progress.
    autostart: Option<oneshot::Sender<Option<Arc<Op>>>>,
}

/// Starts the task of a VM. `on_removed` is called when the VM no longer exists.
pub fn spawn(
    shared: Arc<Shared>,
    record: VmRecord,
    initial: InitialWork,
    on_removed: OnRemoved,
) -> VmHandle {
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let (urgent, urgent_messages) = mpsc::channel(MAILBOX);
    let published = Published { record: Arc::new(record.clone()), operation: None, boot: None };
    let (publisher, receiver) = watch::channel(published);
    let task = VmTask {
        book: OpBook::of_vm(&shared, record.tag()),
        shared,
        record,
        publisher,
        queue: RequestQueue::default(),
        exit: watch::channel(None).1,
        hurry: watch::Sender::new(false),
        job: None,
        lending: None,
        delete_tried: false,
        on_removed: Some(on_removed),
        followed: None,
        stop_wanted: false,
        autostart: None,
    };
    // The initial work counts as pending from now on, so a shutdown of the daemon waits for it.
    let pending = task.shared.ops.announce_pending();
    tokio::spawn(task.run(initial, pending, messages, urgent_messages));
    VmHandle { mailbox, urgent, published: receiver }
}

impl VmTask {
    async fn run(
        mut self,
        initial: InitialWork,
        pending: PendingOp,
        mut mailbox: mpsc::Receiver<Message>,
        mut urgent: mpsc::Receiver<Message>,
    ) {
        self.begin_initial(initial).await;
        drop(pending);
        loop {
            if self.job.is_none() && self.lending.is_none() {
                self.begin_next().await;
            }
            let idle_running = self.job.is_none()
                && matches!(self.record.state, VmState::Running | VmState::Paused);
            let mut exit = self.exit.clone();
            tokio::select! {
                // Urgent messages first; then the end of the job, so that answers depend on the
                // latest state; other requests last.
                biased;
                Some(message) = urgent.recv() => self.handle(message).await,
                end = finished(&mut self.job) => {
                    if self.end_job(end).await == Presence::Removed {
                        break;
                    }
                }
                () = lending::returned(&mut self.lending) => self.end_lending(),
                Ok(story) = exit_story(&mut exit), if idle_running => {
                    self.begin_internal("exited", Work::Exited(story)).await;
                }
                Some(message) = mailbox.recv() => self.handle(message).await,
                else => return,
            }
        }
        self.refuse_remaining(&mut mailbox, &mut urgent).await;
    }

    async fn begin_initial(&mut self, initial: InitialWork) {
        match initial {
            InitialWork::Create(op, then) => {
                self.begin_unqueued(op, Work::Create(then), Vec::new());
            }
            InitialWork::Recover(Action::Nothing) => {}
            InitialWork::Recover(action) => {
                self.begin_internal("recover", Work::Recover(action)).await;
            }
        }
    }

    /// Starts work that no client requested.
    async fn begin_internal(&mut self, kind: &str, work: Work) {
        let InternalOp { op, unsaved } = self.book.open_best_effort(kind).await;
        self.begin_unqueued(op, work, unsaved);
    }

    /// Starts work outside of the queue. Its final state counts for the answers to requests.
    fn begin_unqueued(&mut self, op: Arc<Op>, work: Work, unsaved: Vec<Write>) {
        if let Some(action) = work.equivalent_action() {
            self.queue.begin(Queued { op: op.id.clone(), action });
        }
        self.spawn(op, work, unsaved);
    }

    async fn begin_next(&mut self) {
        loop {
            self.end_lifetime().await;
            let Some(next) = self.queue.take_next() else { return self.begin_autostart().await };
            let Some(op) = self.shared.ops.get(&next.op) else {
                self.queue.finish();
                continue;
            };
            // The state can differ from the one expected when the request was accepted.
            let settled = match queue::settle(self.record.state, &next.action) {
                Answer::Do(_) => {
                    self.spawn(op, Work::Queued(next), Vec::new());
                    return;
                }
                Answer::AlreadySo(_) => {
                    self.stop_wanted |= wish::is_stop(&next.action);
                    self.keep_stopped().await;
                    Ok(None)
                }
                Answer::Refused(refusal) => {
                    Err(refusals::explain(&self.record.plan.name, &next.action, &refusal))
                }
            };
            self.queue.finish();
            self.book.end(&op, settled).await;
        }
    }

    fn spawn(&mut self, op: Arc<Op>, work: Work, unsaved: Vec<Write>) {
        self.hurry.send_replace(false);
        self.publisher.send_modify(|published| published.operation = Some(op.id.clone()));
        self.shared.changed();
        let signals = Signals { hurry: self.hurry.subscribe(), exit: self.exit.clone() };
        let mut worker = Worker::new(
            self.shared.clone(),
            op.clone(),
            self.record.clone(),
            self.publisher.clone(),
            signals,
            unsaved,
        );
        let span = op.span.clone();
        let work = async move {
            let result = worker.work(work).await;
            JobEnd { record: worker.record, exit: worker.exit, result }
        };
        let handle = tokio::spawn(work.instrument(span));
        self.job = Some(Job { op, handle });
    }

    async fn end_job(&mut self, end: Result<JobEnd, tokio::task::JoinError>) -> Presence {
        let Some(job) = self.job.take() else { return Presence::Exists };
        self.queue.finish();
        let result = match end {
            Ok(end) => {
                self.record = end.record;
                self.exit = end.exit;
                end.result
            }
            Err(panic) => Err(self.mark_invalid(&panic).await),
        };
        self.keep_stopped().await;
        let removed = matches!(result, Ok(Presence::Removed)) || self.was_rolled_back(&result);
        // A rename changes it.
        self.book = OpBook::of_vm(&self.shared, self.record.tag());
        self.publisher.send_modify(|published| {
            published.operation = None;
            published.record = Arc::new(self.record.clone());
        });
        self.shared.changed();
        let followed = &mut self.followed;
        boot_watch::begin(&self.shared, &self.publisher, &self.record, followed);
        // The name is free before clients receive the end of the operation.
        if let Some(on_removed) = self.on_removed.take_if(|_| removed) {
            on_removed();
        }
        self.book.end(&job.op, result.map(|_| None)).await;
        if removed { Presence::Removed } else { Presence::Exists }
    }

    /// Whether a failed create was undone, so that no VM is left.
    fn was_rolled_back(&self, result: &Result<Presence, ApiError>) -> bool {
        result.is_err()
            && self.record.existence == Existence::Creating
            && self.record.state == VmState::Stopped
    }

    /// After a panic of the job the state of the VM is unknown: marks it as broken.
    async fn mark_invalid(&mut self, panic: &tokio::task::JoinError) -> ApiError {
        self.record = VmRecord::clone(&self.publisher.borrow().record);
        let text = format!("the daemon failed while it worked on this VM: {panic}");
        tracing::error!(vm = %self.record.plan.id, "{text}");
        self.record.mark_invalid(text.clone());
        let put = Write::PutVm(Box::new(self.record.clone()));
        let mut error = ApiError::new(ErrorCode::Internal, text);
        if let Err(unsaved) = self.shared.store.commit(vec![put], Durability::Process).await {
            error.causes.push(unsaved.message);
        }
        error
    }

    /// Deletes a stopped VM whose lifetime is limited, also after a restart of the daemon.
    async fn end_lifetime(&mut self) {
        let stopped = self.record.state == VmState::Stopped;
        // Once per run: after a failed delete an immediate retry would not help.
        self.delete_tried &= stopped;
        let over = self.record.plan.lifetime != Lifetime::Keep
            && self.record.inspect == Inspect::No
            && self.queue.is_idle();
        if stopped && over && !self.delete_tried {
            self.delete_tried = true;
            let action = VmAction::Delete { force: true };
            match self.book.open(action.as_str(), Durability::Process).await {
                Ok(op) => self.queue.push(Queued { op: op.id.clone(), action }),
                // The next daemon retries.
                Err(error) => tracing::error!(vm = %self.record.plan.id, error = %error, "store"),
            }
        }
    }

    /// Interrupts the job: a start is undone, the grace period of a stop ends.
    fn interrupt(&self) {
        self.hurry.send_replace(true);
        if let Some(job) = &self.job {
            job.op.cancel();
        }
    }
}

async fn finished(job: &mut Option<Job>) -> Result<JobEnd, tokio::task::JoinError> {
    match job {
        Some(job) => (&mut job.handle).await,
        None => std::future::pending().await,
    }
}

async fn exit_story(
    exit: &mut watch::Receiver<Option<ExitStory>>,
) -> Result<ExitStory, watch::error::RecvError> {
    let story = exit.wait_for(Option::is_some).await?;
    Ok(story.clone().unwrap_or_else(|| ExitStory::unknown("the VMM ended")))
}
