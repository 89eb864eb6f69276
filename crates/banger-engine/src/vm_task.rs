//! The one owner of a VM: a task that hears requests while at most one operation works on the VM.
//!
//! Requests come through a bounded mailbox; kills and forced deletes have a channel of their own that
//! outranks it. The record leaves through one door, a watch channel, with a generation number.

use std::sync::Arc;

use banger_api::operation::{Accepted, OpState, VmTag};
use banger_api::vm::{Lifetime, VmAction, VmState};
use banger_api::{ApiError, ErrorCode, OpId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::drivers::ExitStory;
use crate::ops::Op;
use crate::queue::{self, Answer, Force, Meanwhile, Queued, Refusal, RequestQueue};
use crate::record::{Existence, Fate, Inspect, VmRecord};
use crate::recovery::Action;
use crate::runner::{Published, Shared, Worker};
use crate::state::VmEvent;
use crate::store::{Durability, OpRecord, Write};
use crate::vm_jobs::ThenStart;

/// Requests that wait in the mailbox before senders have to.
pub const MAILBOX: usize = 32;

/// Something asked of the owner.
pub enum Message {
    /// A request of a client.
    Request {
        /// What.
        action: VmAction,
        /// Whether a delete is forced.
        force: Force,
        /// Grace of a stop or restart, in milliseconds.
        grace_ms: u64,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, ApiError>>,
    },
    /// An operation that may still be waiting should not begin.
    Cancel(OpId),
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

enum Work {
    Create(ThenStart),
    Queued(Queued),
    Exited(ExitStory),
    Recover(Action),
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

type Gone = Box<dyn FnOnce() + Send>;

struct VmTask {
    shared: Arc<Shared>,
    record: VmRecord,
    publisher: watch::Sender<Published>,
    queue: RequestQueue,
    exit: watch::Receiver<Option<ExitStory>>,
    hurry: watch::Sender<bool>,
    job: Option<Job>,
}

/// Starts the owner of a VM. `gone` is called when the VM does not exist any more.
pub fn spawn(shared: Arc<Shared>, record: VmRecord, first: First, gone: Gone) -> VmHandle {
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let (urgent, urgent_messages) = mpsc::channel(MAILBOX);
    let published = Published { record: Arc::new(record.clone()), operation: None };
    let (publisher, receiver) = watch::channel(published);
    let task = VmTask {
        shared,
        record,
        publisher,
        queue: RequestQueue::default(),
        exit: watch::channel(None).1,
        hurry: watch::Sender::new(false),
        job: None,
    };
    tokio::spawn(async move {
        task.run(first, messages, urgent_messages).await;
        gone();
    });
    VmHandle { mailbox, urgent, published: receiver }
}

impl VmTask {
    async fn run(
        mut self,
        first: First,
        mut mailbox: mpsc::Receiver<Message>,
        mut urgent: mpsc::Receiver<Message>,
    ) {
        self.begin_first(first).await;
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
                    let op = self.internal_op("exited").await;
                    self.spawn(op, Work::Exited(story));
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
                // A create that starts counts as a start for what may be asked meanwhile.
                let action = match then {
                    ThenStart::Yes => VmAction::Start,
                    ThenStart::No => VmAction::Stop,
                };
                let force = Force::No;
                self.queue.begin(Queued { op: op.id.clone(), action, force, grace_ms: 0 });
                self.spawn(op, Work::Create(then));
            }
            First::Recover(Action::Nothing) => {}
            First::Recover(action) => {
                let op = self.internal_op("recover").await;
                self.spawn(op, Work::Recover(action));
            }
        }
    }

    /// An operation that nobody asked for.
    async fn internal_op(&self, kind: &str) -> Arc<Op> {
        let op = self.new_op(kind);
        if let Err(error) = self.add_op(&op, Durability::Process).await {
            tracing::error!(op = %op.id, error = %error, "store");
        }
        op
    }

    fn new_op(&self, kind: &str) -> Arc<Op> {
        let op = Op::new(OpId::from_entropy(self.shared.drivers.host.entropy()), kind);
        op.about(self.tag());
        self.shared.ops.add(op.clone());
        op
    }

    fn tag(&self) -> VmTag {
        VmTag { id: self.record.plan.id.clone(), name: self.record.plan.name.clone() }
    }

    async fn add_op(&self, op: &Op, durability: Durability) -> Result<(), ApiError> {
        let record = OpRecord {
            id: op.id.clone(),
            kind: op.kind.clone(),
            vm: self.record.plan.id.clone(),
            vm_name: self.record.plan.name.clone(),
            state: OpState::Running,
            error: None,
            started_unix_ms: self.shared.drivers.host.now_unix_ms(),
        };
        self.shared.store.commit(vec![Write::AddOp(record)], durability).await
    }

    async fn begin_next(&mut self) {
        while let Some(next) = self.queue.take_next() {
            let Some(op) = self.shared.ops.get(&next.op) else {
                self.queue.finish();
                continue;
            };
            // The state may not be the one that was expected when this was accepted.
            let settled = match queue::settle(self.record.state, next.action, next.force) {
                Answer::Do(_) => {
                    self.spawn(op, Work::Queued(next));
                    return;
                }
                Answer::AlreadySo(_) => Ok(None),
                Answer::Refused(refusal) => Err(self.refusal(next.action, &refusal)),
            };
            self.queue.finish();
            self.end_op(&op, settled).await;
        }
    }

    fn spawn(&mut self, op: Arc<Op>, work: Work) {
        self.hurry.send_replace(false);
        self.publisher.send_modify(|published| published.operation = Some(op.id.clone()));
        let signals = (self.hurry.subscribe(), self.exit.clone());
        let mut worker = Worker::new(
            self.shared.clone(),
            op.clone(),
            self.record.clone(),
            self.publisher.clone(),
            signals,
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
        let fate = if gone { Fate::Gone } else { Fate::Lives };
        if fate == Fate::Lives {
            self.end_lifetime().await;
        }
        self.end_op(&job.op, result.map(|_| None)).await;
        fate
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
        if self.record.apply(VmEvent::Distrusted).is_ok() {
            self.record.problems = vec![text.clone()];
        }
        let put = Write::PutVm(Box::new(self.record.clone()));
        let mut error = ApiError::new(ErrorCode::Internal, text);
        if let Err(unsaved) = self.shared.store.commit(vec![put], Durability::Process).await {
            error.causes.push(unsaved.message);
        }
        error
    }

    /// A VM that was to live no longer than its run is deleted once it has stopped.
    async fn end_lifetime(&mut self) {
        let over = self.record.plan.lifetime != Lifetime::Keep
            && self.record.state == VmState::Stopped
            && self.record.inspect == Inspect::No;
        if over && self.queue.is_idle() {
            let op = self.internal_op("delete").await;
            let (action, force) = (VmAction::Delete, Force::Yes);
            self.queue.push(Queued { op: op.id.clone(), action, force, grace_ms: 0 });
        }
    }

    async fn end_op(&self, op: &Op, result: Result<Option<String>, ApiError>) {
        if let Err(error) = &result {
            tracing::warn!(op = %op.id, kind = op.kind, error = %error, causes = ?error.causes, "failed");
        }
        let error = result.as_ref().err().cloned().map(|error| error.in_operation(&op.id));
        let end = Write::EndOp { op: op.id.clone(), error };
        if let Err(error) = self.shared.store.commit(vec![end], Durability::Process).await {
            tracing::error!(op = %op.id, error = %error, "store");
        }
        op.end(result);
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Request { action, force, grace_ms, reply } => {
                let answer = self.request(action, force, grace_ms).await;
                // A client that left does not take back what it asked for.
                let _ = reply.send(answer);
            }
            Message::Cancel(op) => {
                if self.queue.remove(&op).is_some()
                    && let Some(op) = self.shared.ops.get(&op)
                {
                    let text = format!("{} of `{}` was cancelled", op.kind, self.record.plan.name);
                    self.end_op(&op, Err(ApiError::new(ErrorCode::Cancelled, text))).await;
                }
            }
        }
    }

    async fn request(
        &mut self,
        action: VmAction,
        force: Force,
        grace_ms: u64,
    ) -> Result<Accepted, ApiError> {
        let state = self.publisher.borrow().record.state;
        let vm = Some(self.tag());
        match self.queue.answer(state, action, force) {
            Answer::AlreadySo(operation) => Ok(Accepted { operation, vm, warnings: Vec::new() }),
            Answer::Refused(refusal) => Err(self.refusal(action, &refusal)),
            Answer::Do(meanwhile) => {
                let op = self.new_op(action.as_str());
                if let Err(error) = self.add_op(&op, Durability::Power).await {
                    op.end(Err(error.clone()));
                    return Err(error);
                }
                self.queue.push(Queued { op: op.id.clone(), action, force, grace_ms });
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

    fn refusal(&self, action: VmAction, refusal: &Refusal) -> ApiError {
        let name = &self.record.plan.name;
        let verb = action.as_str();
        match refusal {
            Refusal::QueueFull => {
                let text = format!("too many requests are waiting for `{name}`");
                ApiError::new(ErrorCode::Busy, text).with_hint("wait until some are done")
            }
            Refusal::NeedsForce(state) => {
                let text = format!("cannot delete `{name}`: it is {}", state.as_str());
                let hint = format!("stop it first, or use `banger vm delete -f {name}`");
                ApiError::new(ErrorCode::WrongState, text).with_hint(hint)
            }
            Refusal::State(state) => {
                let text = format!("cannot {verb} `{name}`: it is {}", state.as_str());
                let error = ApiError::new(ErrorCode::WrongState, text);
                match state {
                    VmState::Broken => error.with_hint(format!(
                        "`banger vm repair {name}` brings it back; `banger vm show {name}` says why"
                    )),
                    VmState::Running | VmState::Paused => {
                        error.with_hint(format!("`banger vm stop {name}` stops it"))
                    }
                    VmState::Stopped
                    | VmState::Starting
                    | VmState::Stopping
                    | VmState::Deleting => error,
                }
            }
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
                VmAction::Delete => Ok(None),
                _ => Err(gone()),
            };
            self.end_op(&op, result).await;
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
    if let Message::Request { reply, .. } = message {
        let _ = reply.send(Err(error));
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

impl Worker {
    async fn work(&mut self, work: Work) -> Result<Fate, ApiError> {
        match work {
            Work::Create(then) => self.create(then).await,
            Work::Exited(story) => self.exited(&story).await,
            Work::Recover(action) => self.recover(action).await,
            Work::Queued(queued) => match queued.action {
                VmAction::Start => self.start().await,
                VmAction::Stop => self.stop(queued.grace_ms).await,
                VmAction::Kill => self.stop(0).await,
                VmAction::Restart => self.restart(queued.grace_ms).await,
                VmAction::Delete => self.delete().await,
                VmAction::Repair => self.repair().await,
            },
        }
    }
}
