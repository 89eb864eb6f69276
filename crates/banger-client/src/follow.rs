//! Follows an operation to its end and handles interrupts (Ctrl-C) meanwhile.
//!
//! The user interface supplies an [`Observer`] that shows the events, and a counter of interrupts.
//! The first interrupt does what [`OnInterrupt`] says, the second one ends the wait at once. The
//! operation continues in the daemon after the wait has ended.

use std::time::Duration;

use banger_api::operation::{Accepted, OpEvent, OpEventKind, stage};
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, OpId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::Client;

/// Time without events after which the observer gets a reminder of the current stage.
const REMINDER_INTERVAL: Duration = Duration::from_secs(10);
/// Time limit of a cancel request that is sent just before the wait ends.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

/// Interrupts of one command, counted since this value was created. A clone counts from the same
/// time.
#[derive(Debug, Clone)]
pub struct Interrupts {
    count: watch::Receiver<u32>,
    base: u32,
}

impl Interrupts {
    /// Counts from now on; the channel holds the number of all interrupts so far.
    pub fn new(mut count: watch::Receiver<u32>) -> Self {
        let base = *count.borrow_and_update();
        Self { count, base }
    }

    /// Whether there was an interrupt.
    pub fn interrupted(&self) -> bool {
        *self.count.borrow() > self.base
    }

    /// Whether there were several interrupts.
    fn repeated(&self) -> bool {
        *self.count.borrow() > self.base.saturating_add(1)
    }

    /// Waits for the next interrupt; forever if signals cannot be received.
    pub async fn next(&mut self) {
        if self.count.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Effect of the first interrupt on an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels the operation, which undoes itself.
    Cancel,
    /// Ends the wait; the operation continues.
    StopWaiting,
    /// Ends the wait while the guest shuts down, cancels the start that follows.
    StopWaitingThenCancel,
    /// None: the operation ends soon, and a removal cannot be undone.
    Ignore,
}

impl OnInterrupt {
    /// Effect of an interrupt on an action on a VM.
    pub fn of(action: &VmAction) -> Self {
        match action {
            VmAction::Start {} => Self::Cancel,
            VmAction::Stop { .. } => Self::StopWaiting,
            VmAction::Restart { .. } => Self::StopWaitingThenCancel,
            VmAction::Kill {}
            | VmAction::Pause {}
            | VmAction::Resume {}
            | VmAction::Delete { .. }
            | VmAction::Repair {}
            | VmAction::Set(_)
            | VmAction::Rename { .. }
            | VmAction::Reset {} => Self::Ignore,
        }
    }

    fn in_stage(self, name: &str) -> Self {
        match self {
            Self::StopWaitingThenCancel
                if matches!(name, "" | stage::SHUTDOWN | stage::TEARDOWN) =>
            {
                Self::StopWaiting
            }
            Self::StopWaitingThenCancel => Self::Cancel,
            other => other,
        }
    }
}

/// Reason why the wait ended before the operation, which continues in the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitEnd {
    /// The operation is being cancelled.
    Cancelling,
    /// The daemon did not answer the cancel request.
    CancelUnanswered,
    /// The stop of a VM continues.
    StopContinues,
    /// The operation cannot be cancelled and ends soon.
    EndsSoon,
    /// The action was not requested.
    NotStarted,
    /// The daemon has not answered the request, which may have started an operation.
    RequestUnanswered,
}

/// A notification besides the events of the operation; each user interface words it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Id of the operation.
    Operation(&'a OpId),
    /// A warning in the daemon's answer.
    Warning(&'a str),
    /// The first interrupt came before the daemon's answer; it takes effect after the answer.
    AwaitingAnswer,
    /// The first interrupt cancelled the operation.
    Cancelling,
    /// The first interrupt had no effect on the operation.
    NotCancelled,
    /// No event for [`REMINDER_INTERVAL`]; the stage and the time since its start.
    StillIn(&'a str, Duration),
    /// The wait ended before the operation.
    WaitEnded(WaitEnd),
}

/// Shows the progress of one operation.
pub trait Observer {
    /// The next event.
    fn event(&mut self, event: &OpEvent);
    /// A notification besides the events.
    fn notice(&mut self, notice: Notice<'_>);
}

/// Shows nothing.
impl Observer for () {
    fn event(&mut self, _: &OpEvent) {}
    fn notice(&mut self, _: Notice<'_>) {}
}

/// The result of an operation that succeeded, or of a request without an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Id of the new image or kernel, if the operation made one.
    pub made: Option<String>,
    /// Duration of the operation in milliseconds; absent without an operation and after a restart
    /// of the daemon.
    pub ms: Option<u64>,
}

/// Why the client has no successful result.
#[derive(Debug, PartialEq, Eq)]
pub enum FollowError {
    /// The operation failed, or a request to the daemon.
    Failed(Box<ApiError>),
    /// An interrupt cancelled the operation, which was undone.
    Cancelled(Box<ApiError>),
    /// An interrupt ended the wait.
    WaitEnded(WaitEnd),
}

impl From<ApiError> for FollowError {
    fn from(error: ApiError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Waits for the daemon's answer to a request that starts an operation.
///
/// The first interrupt does not drop the request, whose operation has no id yet: it calls
/// `interrupted` and takes effect in [`Client::follow_to_end`] with the same interrupts. The second
/// one ends the wait.
///
/// # Errors
/// The request's, or the second interrupt.
pub async fn accepted(
    request: impl Future<Output = Result<Accepted, ApiError>>,
    interrupts: &Interrupts,
    interrupted: impl FnOnce(),
) -> Result<Accepted, FollowError> {
    // A clone, so that the interrupt is still unseen by the caller's value.
    let mut interrupts = interrupts.clone();
    tokio::pin!(request);
    tokio::select! {
        biased;
        answer = &mut request => return Ok(answer?),
        () = interrupts.next() => {}
    }
    if !interrupts.repeated() {
        interrupted();
        tokio::select! {
            biased;
            answer = &mut request => return Ok(answer?),
            () = interrupts.next() => {}
        }
    }
    Err(FollowError::WaitEnded(WaitEnd::RequestUnanswered))
}

impl Client {
    /// Follows an accepted operation to its end.
    ///
    /// # Errors
    /// The operation's, the daemon's, or an interrupt.
    pub async fn follow_to_end(
        &self,
        accepted: &Accepted,
        interrupts: Interrupts,
        on_interrupt: OnInterrupt,
        observer: &mut impl Observer,
    ) -> Result<Done, FollowError> {
        for warning in &accepted.warnings {
            observer.notice(Notice::Warning(warning));
        }
        let Some(operation) = &accepted.operation else { return Ok(Done::default()) };
        observer.notice(Notice::Operation(operation));
        let watch = Watch {
            client: self,
            operation,
            interrupts,
            on_interrupt,
            observer,
            stage: Stage { name: String::new(), since: Instant::now() },
            cancelled: false,
        };
        watch.run().await
    }
}

struct Stage {
    name: String,
    since: Instant,
}

struct Watch<'a, O> {
    client: &'a Client,
    operation: &'a OpId,
    interrupts: Interrupts,
    on_interrupt: OnInterrupt,
    observer: &'a mut O,
    stage: Stage,
    cancelled: bool,
}

impl<O: Observer> Watch<'_, O> {
    async fn run(mut self) -> Result<Done, FollowError> {
        let mut events = self.client.follow(self.operation);
        let mut reminder = Instant::now() + REMINDER_INTERVAL;
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                () = self.interrupts.next() => {
                    self.interrupted().await?;
                    continue;
                }
                () = sleep_until(reminder) => {
                    reminder += REMINDER_INTERVAL;
                    let notice = Notice::StillIn(&self.stage.name, self.stage.since.elapsed());
                    self.observer.notice(notice);
                    continue;
                }
            };
            let Some(event) = event else { return Ok(Done::default()) };
            self.observer.event(&event);
            match event.what {
                OpEventKind::StageStarted { stage } => {
                    self.stage = Stage { name: stage, since: Instant::now() };
                    reminder = self.stage.since + REMINDER_INTERVAL;
                }
                OpEventKind::Succeeded { made } => {
                    return Ok(Done { made, ms: Some(event.at_ms).filter(|ms| *ms > 0) });
                }
                OpEventKind::Failed { error } => return Err(self.failed(error)),
                OpEventKind::Progress { .. } | OpEventKind::Note { .. } => {
                    reminder = Instant::now() + REMINDER_INTERVAL;
                }
                OpEventKind::Subject { .. }
                | OpEventKind::StageDone { .. }
                | OpEventKind::Warning { .. } => {}
            }
        }
    }

    fn failed(&self, error: ApiError) -> FollowError {
        let error = Box::new(error.in_operation(self.operation));
        match error.code {
            ErrorCode::Cancelled if self.cancelled => FollowError::Cancelled(error),
            _ => FollowError::Failed(error),
        }
    }

    fn end_wait(&mut self, end: WaitEnd) -> FollowError {
        self.observer.notice(Notice::WaitEnded(end));
        FollowError::WaitEnded(end)
    }

    async fn interrupted(&mut self) -> Result<(), FollowError> {
        let repeated = self.interrupts.repeated();
        match self.on_interrupt.in_stage(&self.stage.name) {
            OnInterrupt::StopWaiting if !self.cancelled => {
                Err(self.end_wait(WaitEnd::StopContinues))
            }
            OnInterrupt::Ignore if repeated => Err(self.end_wait(WaitEnd::EndsSoon)),
            OnInterrupt::Ignore => {
                self.observer.notice(Notice::NotCancelled);
                Ok(())
            }
            _ if repeated => {
                if !self.cancelled {
                    // Both interrupts came at once: the cancel request has not been sent yet.
                    let _ = timeout(CANCEL_TIMEOUT, self.client.cancel(self.operation)).await;
                }
                Err(self.end_wait(WaitEnd::Cancelling))
            }
            _ => self.cancel().await,
        }
    }

    async fn cancel(&mut self) -> Result<(), FollowError> {
        self.cancelled = true;
        self.observer.notice(Notice::Cancelling);
        let answer = tokio::select! {
            answer = self.client.cancel(self.operation) => answer,
            // Without an answer of the daemon, the next interrupt ends the wait.
            () = self.interrupts.next() => return Err(self.end_wait(WaitEnd::CancelUnanswered)),
        };
        match answer {
            // If the operation has ended meanwhile, its last event has the result.
            Ok(_) => Ok(()),
            Err(error) if error.code == ErrorCode::NotFound => Ok(()),
            Err(error) if error.code == ErrorCode::WrongState => {
                self.cancelled = false;
                self.observer.notice(Notice::NotCancelled);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effect_of_an_interrupt_depends_on_action_and_stage() {
        let restart = OnInterrupt::of(&VmAction::Restart { grace_ms: 0 });
        for (name, expected) in [
            ("", OnInterrupt::StopWaiting),
            (stage::SHUTDOWN, OnInterrupt::StopWaiting),
            (stage::TEARDOWN, OnInterrupt::StopWaiting),
            (stage::PREFLIGHT, OnInterrupt::Cancel),
            (stage::BOOT, OnInterrupt::Cancel),
        ] {
            assert_eq!(restart.in_stage(name), expected, "{name}");
        }
        assert_eq!(
            OnInterrupt::of(&VmAction::STOP).in_stage(stage::BOOT),
            OnInterrupt::StopWaiting
        );
        assert_eq!(OnInterrupt::of(&VmAction::Start {}).in_stage(""), OnInterrupt::Cancel);
        assert_eq!(
            OnInterrupt::of(&VmAction::Delete { force: false }).in_stage(""),
            OnInterrupt::Ignore
        );
    }
}
