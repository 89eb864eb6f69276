//! The one owner of a VM: a task that hears requests while at most one operation works on the VM.
//!
//! Requests come through a bounded mailbox; kills and forced deletes have a channel of their own
//! that outranks it. The record is published through one watch channel, with a generation number.

use std::sync::Arc;

use banger_api::operation::{Accepted, CancelEffect, VmTag};
use banger_api::vm::{Lifetime, VmAction, VmState};
use banger_api::{ApiError, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::boot_watch;
use crate::cancel;
use crate::drivers::ExitStory;
use crate::op_book::{InternalOp, OpBook};
use crate::ops::{Beginning, Op};
use crate::queue::{self, Answer, Meanwhile, Queued, RequestQueue};
use crate::record::{Existence, Fate, Inspect, VmRecord};
use crate::recovery::Action;
use crate::refusals;
use crate::runner::{Signals, Worker};
use crate::shared::{Published, Shared};
use crate::store::{Durability, Write};
use crate::vm_jobs::ThenStart;
use crate::work::Work;

/// Requests that wait in the mailbox before senders have to.
pub const MAILBOX: usize = 32;

/// Something asked of the owner.
pub enum Message {
    /// A request of a client.
    Request {
        /// What.
        action: VmAction,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, ApiError>>,
    },
    /// A request to cancel an operation on this VM.
    Cancel {
        /// The operation.
        op: Arc<Op>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<CancelEffect, ApiError>>,
    },
}

/// What a task begins with.
pub enum First {
    /// A create whose operation and row are on record.
    Create(Arc<Op>, ThenStart),
    /// What recovery decided.
    Recover(Action),
}

/// How others reach a VM.
#[derive(Clone)]
pub struct VmHandle {
    /// The ordinary way.
    pub mailbox: mpsc::Sender<Message>,
    /// The way that outranks it.
    pub urgent: mpsc::Sender<Message>,
    /// What everybody may see.
    pub published: watch::Receiver<Published>,
}

struct JobEnd {
    record: VmRecord,
    exit: watch::Receiver<Option<ExitStory>>,
    result: Result<Fate, ApiError>,
}

struct Job {
    op: Arc<Op>,
    handle: JoinHandle<JobEnd>,
}

type Gone = Box<dyn FnOnce() + Send + Sync>;

struct VmTask {
    shared: Arc<Shared>,
    book: OpBook,
    vm: VmTag,
    record: VmRecord,
    publisher: watch::Sender<Published>,
    queue: RequestQueue,
    exit: watch::Receiver<Option<ExitStory>>,
    hurry: watch::Sender<bool>,
    job: Option<Job>,
    /// Whether this run's end has led to a delete already.
    delete_tried: bool,
    gone: Option<Gone>,
    /// Boot id of the guest whose boot is followed.
    followed: Option<String>,
}

/// Starts the owner of a VM. `gone` is called when the VM does not exist any more.
pub fn spawn(shared: Arc<Shared>, record: VmRecord, first: First, gone: Gone) -> VmHandle {
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let (urgent, urgent_messages) = mpsc::channel(MAILBOX);
    let published = Published { record: Arc::new(record.clone()), operation: None, boot: None };
    let (publisher, receiver) = watch::channel(published);
    let vm = VmTag { id: record.plan.id.clone(), name: record.plan.name.clone() };
    let task = VmTask {
        book: OpBook::of_vm(&shared, vm.clone()),
        shared,
        vm,
        record,
        publisher,
        queue: RequestQueue::default(),
        exit: watch::channel(None).1,
        hurry: watch::Sender::new(false),
        job: None,
        delete_tried: false,
        gone: Some(gone),
        followed: None,
    };
    // What it begins with counts from now on: a daemon that is asked to end waits for it.
    let beginning = task.shared.ops.beginning();
    tokio::spawn(task.run(first, beginning, messages, urgent_messages));
    VmHandle { mailbox, urgent, published: receiver }
}

impl VmTask {
    async fn run(
        mut self,
        first: First,
        beginning: Beginning,
        mut mailbox: mpsc::Receiver<Message>,
        mut urgent: mpsc::Receiver<Message>,
    ) {
        self.begin_first(first).await;
        drop(beginning);
        loop {
            if self.job.is_none() {
                self.begin_next().await;
            }
            let idle_running = self.job.is_none()
                && matches!(self.record.state, VmState::Running | VmState::Paused);
            let mut exit = self.exit.clone();
            tokio::select! {
                // What outranks comes first; then the end of work, so that answers look at the
                // latest state; new requests last.
                biased;
                Some(message) = urgent.recv() => self.hear(message).await,
                end = finished(&mut self.job) => {
                    if self.end_job(end).await == Fate::Gone {
                        break;
                    }
                }
                Ok(story) = exit_story(&mut exit), if idle_running => {
                    self.begin_internal("exited", Work::Exited(story)).await;
                }
                Some(message) = mailbox.recv() => self.hear(message).await,
                else => return,
            }
        }
        self.refuse_the_rest(&mut mailbox, &mut urgent).await;
    }

    async fn begin_first(&mut self, first: First) {
        match first {
            First::Create(op, then) => {
                self.begin_unqueued(op, Work::Create(then), Vec::new());
            }
            First::Recover(Action::Nothing) => {}
            First::Recover(action) => {
                self.begin_internal("recover", Work::Recover(action)).await;
            }
        }
    }

    /// Begins work that nobody asked for.
    async fn begin_internal(&mut self, kind: &str, work: Work) {
        let InternalOp { op, unsaved } = self.book.open_anyway(kind).await;
        self.begin_unqueued(op, work, unsaved);
    }

    /// What the work leads to counts for what may be asked meanwhile.
    fn begin_unqueued(&mut self, op: Arc<Op>, work: Work, unsaved: Vec<Write>) {
        if let Some(action) = work.leads_to() {
            self.queue.begin(Queued { op: op.id.clone(), action });
        }
        self.spawn(op, work, unsaved);
    }

    async fn begin_next(&mut self) {
        loop {
            self.end_lifetime().await;
            let Some(next) = self.queue.take_next() else { return };
            let Some(op) = self.shared.ops.get(&next.op) else {
                self.queue.finish();
                continue;
            };
            // The state may not be the one that was expected when this was accepted.
            let settled = match queue::settle(self.record.state, next.action) {
                Answer::Do(_) => {
                    self.spawn(op, Work::Queued(next), Vec::new());
                    return;
                }
                Answer::AlreadySo(_) => Ok(None),
                Answer::Refused(refusal) => {
                    Err(refusals::explain(&self.record.plan.name, next.action, &refusal))
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
        let handle = tokio::spawn(async move {
            let result = worker.work(work).await;
            JobEnd { record: worker.record, exit: worker.exit, result }
        });
        self.job = Some(Job { op, handle });
    }

    async fn end_job(&mut self, end: Result<JobEnd, tokio::task::JoinError>) -> Fate {
        let Some(job) = self.job.take() else { return Fate::Lives };
        self.queue.finish();
        let result = match end {
            Ok(end) => {
                self.record = end.record;
                self.exit = end.exit;
                end.result
            }
            Err(panic) => Err(self.distrust(&panic).await),
        };
        let gone = matches!(result, Ok(Fate::Gone)) || self.was_unmade(&result);
        self.publisher.send_modify(|published| {
            published.operation = None;
            published.record = Arc::new(self.record.clone());
        });
        self.shared.changed();
        let followed = &mut self.followed;
        boot_watch::begin(&self.shared, &self.publisher, &self.record, followed);
        // Whoever hears the end of the operation may use the name again.
        if let Some(forget) = self.gone.take_if(|_| gone) {
            forget();
        }
        self.book.end(&job.op, result.map(|_| None)).await;
        if gone { Fate::Gone } else { Fate::Lives }
    }

    /// A create that failed and was undone leaves no VM although it ended in an error.
    fn was_unmade(&self, result: &Result<Fate, ApiError>) -> bool {
        result.is_err()
            && self.record.existence == Existence::Making
            && self.record.state == VmState::Stopped
    }

    /// A bug of ours: whatever it was doing, nothing may be done to this VM until somebody looked.
    async fn distrust(&mut self, panic: &tokio::task::JoinError) -> ApiError {
        self.record = VmRecord::clone(&self.publisher.borrow().record);
        let text = format!("the daemon failed while it worked on this VM: {panic}");
        tracing::error!(vm = %self.record.plan.id, "{text}");
        self.record.distrust(text.clone());
        let put = Write::PutVm(Box::new(self.record.clone()));
        let mut error = ApiError::new(ErrorCode::Internal, text);
        if let Err(unsaved) = self.shared.store.commit(vec![put], Durability::Process).await {
            error.causes.push(unsaved.message);
        }
        error
    }

    /// A VM that was to live no longer than its run is deleted once it has stopped, also when the
    /// daemon ended in between.
    async fn end_lifetime(&mut self) {
        let stopped = self.record.state == VmState::Stopped;
        // Once a run: where it cannot be deleted now, trying again at once would not help.
        self.delete_tried &= stopped;
        let over = self.record.plan.lifetime != Lifetime::Keep
            && self.record.inspect == Inspect::No
            && self.queue.is_idle();
        if stopped && over && !self.delete_tried {
            self.delete_tried = true;
            let action = VmAction::Delete { force: true };
            match self.book.open(action.as_str(), Durability::Process).await {
                Ok(op) => {
                    self.queue.push(Queued { op: op.id.clone(), action });
                }
                // The next daemon finds it stopped, too.
                Err(error) => tracing::error!(vm = %self.record.plan.id, error = %error, "store"),
            }
        }
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Request { action, reply } => {
                let answer = self.request(action).await;
                // A client that left does not take back what it asked for.
                let _ = reply.send(answer);
            }
            Message::Cancel { op, reply } => {
                let waiting = self.queue.remove(&op.id).is_some();
                let answer = if waiting {
                    self.book.end(&op, Err(cancel::cancelled(&op))).await;
                    Ok(CancelEffect::NotBegun)
                } else {
                    cancel::begun(&op)
                };
                let _ = reply.send(answer);
            }
        }
    }

    async fn request(&mut self, action: VmAction) -> Result<Accepted, ApiError> {
        let state = self.publisher.borrow().record.state;
        let vm = Some(self.vm.clone());
        match self.queue.answer(state, action) {
            Answer::AlreadySo(operation) => Ok(Accepted { operation, vm, warnings: Vec::new() }),
            Answer::Refused(refusal) => {
                Err(refusals::explain(&self.record.plan.name, action, &refusal))
            }
            Answer::Do(meanwhile) => {
                let op = self.book.open(action.as_str(), Durability::Power).await?;
                self.queue.push(Queued { op: op.id.clone(), action });
                if meanwhile == Meanwhile::Interrupt {
                    self.interrupt();
                }
                Ok(Accepted { operation: Some(op.id.clone()), vm, warnings: Vec::new() })
            }
        }
    }

    /// Ends what runs: a start by undoing it, a stop by giving no more grace.
    fn interrupt(&self) {
        self.hurry.send_replace(true);
        if let Some(job) = &self.job {
            job.op.cancel();
        }
    }

    async fn refuse_the_rest(
        &mut self,
        mailbox: &mut mpsc::Receiver<Message>,
        urgent: &mut mpsc::Receiver<Message>,
    ) {
        let name = self.record.plan.name.clone();
        let gone = || ApiError::new(ErrorCode::NotFound, format!("`{name}` was deleted"));
        let waiting: Vec<Queued> = self.queue.drain().collect();
        for queued in waiting {
            let Some(op) = self.shared.ops.get(&queued.op) else { continue };
            let result = match queued.action {
                VmAction::Delete { .. } => Ok(None),
                _ => Err(gone()),
            };
            self.book.end(&op, result).await;
        }
        mailbox.close();
        urgent.close();
        while let Some(message) = urgent.recv().await {
            refuse(message, gone());
        }
        while let Some(message) = mailbox.recv().await {
            refuse(message, gone());
        }
    }
}

fn refuse(message: Message, error: ApiError) {
    match message {
        Message::Request { reply, .. } => drop(reply.send(Err(error))),
        // All operations on this VM have ended.
        Message::Cancel { reply, .. } => drop(reply.send(Ok(CancelEffect::Ended))),
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
