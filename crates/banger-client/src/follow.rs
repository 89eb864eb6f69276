//! Following an operation to its end while interrupts (Ctrl-C) are heard.
//!
//! A face supplies an [`Observer`], which shows events in words of its own, and a counter of
//! interrupts. The first interrupt does what [`OnInterrupt`] says, the second one leaves at once;
//! the operation goes on in the daemon whenever it is left.

use std::time::Duration;

use banger_api::operation::{Accepted, OpEvent, OpEventKind, stage};
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, OpId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::Client;

/// Silence after which an observer is reminded of the stage that goes on.
const REMINDER: Duration = Duration::from_secs(10);
/// Longest wait for the daemon's answer on the way out.
const LEAVING: Duration = Duration::from_millis(500);

/// Interrupts of one command: those counted since this was made. A clone counts from the same time.
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

    /// Whether one came.
    pub fn interrupted(&self) -> bool {
        *self.count.borrow() > self.base
    }

    /// Whether more than one came.
    fn insisted(&self) -> bool {
        *self.count.borrow() > self.base.saturating_add(1)
    }

    /// Waits for one that [`Self::next`] did not report yet; for ever where none can come.
    pub async fn next(&mut self) {
        if self.count.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the first interrupt does to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels it: it undoes itself.
    Cancel,
    /// Stops waiting; the operation goes on.
    Leave,
    /// Stops waiting while the guest shuts down, cancels the start that follows.
    LeaveStopCancelStart,
    /// Nothing: the operation ends soon, and an undo of a removal helps nobody.
    GoOn,
}

impl OnInterrupt {
    /// What an interrupt does to an action on a VM.
    pub fn of(action: VmAction) -> Self {
        match action {
            VmAction::Start {} => Self::Cancel,
            VmAction::Stop { .. } => Self::Leave,
            VmAction::Restart { .. } => Self::LeaveStopCancelStart,
            VmAction::Kill {} | VmAction::Delete { .. } | VmAction::Repair {} => Self::GoOn,
        }
    }

    fn in_stage(self, name: &str) -> Self {
        match self {
            Self::LeaveStopCancelStart
                if matches!(name, "" | stage::SHUTDOWN | stage::TEARDOWN) =>
            {
                Self::Leave
            }
            Self::LeaveStopCancelStart => Self::Cancel,
            other => other,
        }
    }
}

/// Why an operation is not followed any longer. It goes on in the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is being cancelled.
    Cancelling,
    /// The daemon does not answer the request to cancel it.
    Unanswered,
    /// It stops a VM.
    Stopping,
    /// It ends soon.
    Ending,
    /// It was not begun.
    NotBegun,
}

/// What happens besides the events of the operation; each face words it for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The operation that is followed.
    Operation(&'a OpId),
    /// A warning that came with the daemon's answer.
    Warning(&'a str),
    /// The first interrupt: the operation is asked to undo itself.
    Cancelling,
    /// The first interrupt, which has no effect on this operation.
    NotCancelled,
    /// Nothing was reported for a while; the stage goes on since this long.
    StillIn(&'a str, Duration),
    /// The operation is not followed any longer.
    Left(Left),
}

/// Shows the course of one operation.
pub trait Observer {
    /// The next event.
    fn event(&mut self, event: &OpEvent);
    /// Something besides the events.
    fn notice(&mut self, notice: Notice<'_>);
}

/// Shows nothing.
impl Observer for () {
    fn event(&mut self, _: &OpEvent) {}
    fn notice(&mut self, _: Notice<'_>) {}
}

/// An operation that succeeded, or a request for what was so already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Id of the image or kernel that was made, where one was.
    pub made: Option<String>,
    /// Duration of the operation in milliseconds; absent where there was none, or where a restart
    /// of the daemon hides it.
    pub ms: Option<u64>,
}

/// Why an operation did not come to a good end before our eyes.
#[derive(Debug, PartialEq, Eq)]
pub enum NotDone {
    /// It failed, or the daemon did.
    Failed(Box<ApiError>),
    /// An interrupt cancelled it, and it was undone.
    Cancelled(Box<ApiError>),
    /// An interrupt ended the wait.
    Left(Left),
}

impl From<ApiError> for NotDone {
    fn from(error: ApiError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl Client {
    /// Follows what was accepted to its end.
    ///
    /// # Errors
    /// The operation's, the daemon's, or an interrupt.
    pub async fn follow_to_end(
        &self,
        accepted: &Accepted,
        interrupts: Interrupts,
        on_interrupt: OnInterrupt,
        observer: &mut impl Observer,
    ) -> Result<Done, NotDone> {
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
    async fn run(mut self) -> Result<Done, NotDone> {
        let mut events = self.client.follow(self.operation);
        let mut reminder = Instant::now() + REMINDER;
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                () = self.interrupts.next() => {
                    self.interrupted().await?;
                    continue;
                }
                () = sleep_until(reminder) => {
                    reminder += REMINDER;
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
                    reminder = self.stage.since + REMINDER;
                }
                OpEventKind::Succeeded { made } => {
                    return Ok(Done { made, ms: Some(event.at_ms).filter(|ms| *ms > 0) });
                }
                OpEventKind::Failed { error } => return Err(self.failed(error)),
                OpEventKind::Progress { .. } | OpEventKind::Note { .. } => {
                    reminder = Instant::now() + REMINDER;
                }
                OpEventKind::Subject { .. }
                | OpEventKind::StageDone { .. }
                | OpEventKind::Warning { .. } => {}
            }
        }
    }

    fn failed(&self, error: ApiError) -> NotDone {
        let error = Box::new(error.in_operation(self.operation));
        match error.code {
            ErrorCode::Cancelled if self.cancelled => NotDone::Cancelled(error),
            _ => NotDone::Failed(error),
        }
    }

    fn leave(&mut self, left: Left) -> NotDone {
        self.observer.notice(Notice::Left(left));
        NotDone::Left(left)
    }

    async fn interrupted(&mut self) -> Result<(), NotDone> {
        let insisted = self.interrupts.insisted();
        match self.on_interrupt.in_stage(&self.stage.name) {
            OnInterrupt::Leave if !self.cancelled => Err(self.leave(Left::Stopping)),
            OnInterrupt::GoOn if insisted => Err(self.leave(Left::Ending)),
            OnInterrupt::GoOn => {
                self.observer.notice(Notice::NotCancelled);
                Ok(())
            }
            _ if insisted => {
                if !self.cancelled {
                    // Both came at once, so the daemon has not heard of the first one yet.
                    let _ = timeout(LEAVING, self.client.cancel(self.operation)).await;
                }
                Err(self.leave(Left::Cancelling))
            }
            _ => self.cancel().await,
        }
    }

    async fn cancel(&mut self) -> Result<(), NotDone> {
        self.cancelled = true;
        self.observer.notice(Notice::Cancelling);
        let answer = tokio::select! {
            answer = self.client.cancel(self.operation) => answer,
            // A daemon that does not answer must not keep anybody waiting.
            () = self.interrupts.next() => return Err(self.leave(Left::Unanswered)),
        };
        match answer {
            // It may have ended meanwhile; its last event tells how.
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
        let restart = OnInterrupt::of(VmAction::Restart { grace_ms: 0 });
        for (name, expected) in [
            ("", OnInterrupt::Leave),
            (stage::SHUTDOWN, OnInterrupt::Leave),
            (stage::TEARDOWN, OnInterrupt::Leave),
            (stage::PREFLIGHT, OnInterrupt::Cancel),
            (stage::BOOT, OnInterrupt::Cancel),
        ] {
            assert_eq!(restart.in_stage(name), expected, "{name}");
        }
        assert_eq!(OnInterrupt::of(VmAction::STOP).in_stage(stage::BOOT), OnInterrupt::Leave);
        assert_eq!(OnInterrupt::of(VmAction::Start {}).in_stage(""), OnInterrupt::Cancel);
        assert_eq!(
            OnInterrupt::of(VmAction::Delete { force: false }).in_stage(""),
            OnInterrupt::GoOn
        );
    }
}
