//! Boot progress of running guests: requested from each guest's agent once per run, kept in memory,
//! and awaited by commands that need a booted guest.
//!
//! The agent answers when its init has finished booting, so there is no polling. A new daemon
//! repeats the request.

use std::sync::Arc;
use std::time::Duration;

use banger_api::boot::{BootView, MAX_WAIT_MS, Wait, WaitFor};
use banger_api::hint::VmLog;
use banger_api::vm::VmState;
use banger_api::{ApiError, ErrorCode, Hint};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::plan::VmPlan;
use crate::record::VmRecord;
use crate::shared::{Published, Shared};

/// Timeout of a request for boot progress; the agent answers as soon as the boot is over.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Delay before a failed request is repeated, and its maximum.
const RETRY_DELAY: Duration = Duration::from_millis(500);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// The boot of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBoot {
    /// Boot id of the guest.
    pub boot_id: String,
    /// Report of its agent.
    pub view: BootView,
}

impl Published {
    /// Boot progress of the guest of the present run.
    pub fn boot(&self) -> Option<&BootView> {
        let present = running_boot_id(&self.record)?;
        self.boot.as_ref().filter(|boot| boot.boot_id == present).map(|boot| &boot.view)
    }
}

/// Boot id of the guest of a running VM.
pub fn running_boot_id(record: &VmRecord) -> Option<&str> {
    let runs = matches!(record.state, VmState::Running | VmState::Paused);
    record.run.as_ref().filter(|_| runs)?.boot_id.as_deref()
}

/// Follows the boot of a run that has begun; `followed` is the boot id of the run before.
pub fn begin(
    shared: &Arc<Shared>,
    publisher: &watch::Sender<Published>,
    record: &VmRecord,
    followed: &mut Option<String>,
) {
    let present = running_boot_id(record).map(str::to_owned);
    if present == *followed {
        return;
    }
    followed.clone_from(&present);
    if let Some(boot_id) = present {
        let (shared, plan) = (shared.clone(), record.plan.clone());
        tokio::spawn(follow(shared, publisher.clone(), plan, boot_id));
    }
}

/// Repeats the request until the guest has booted or the run is over, and publishes the answers.
async fn follow(
    shared: Arc<Shared>,
    publisher: watch::Sender<Published>,
    plan: VmPlan,
    boot_id: String,
) {
    let mut published = publisher.subscribe();
    let mut resumed = publisher.subscribe();
    let over = published.wait_for(|published| running_boot_id(&published.record) != Some(&boot_id));
    let ask = async {
        let mut delay = RETRY_DELAY;
        loop {
            match shared.drivers.guest.boot_progress(&plan, REQUEST_TIMEOUT).await {
                Ok(view) => {
                    let is_over = view.is_over();
                    let boot = RunBoot { boot_id: boot_id.clone(), view };
                    publisher.send_if_modified(|published| {
                        let changed = published.boot.as_ref() != Some(&boot);
                        published.boot = Some(boot);
                        changed
                    });
                    if is_over {
                        return;
                    }
                    delay = RETRY_DELAY;
                }
                // The agent of a paused guest answers after the resume.
                Err(_) if resumed.borrow().record.state == VmState::Paused => {
                    let runs = |seen: &Published| seen.record.state != VmState::Paused;
                    if resumed.wait_for(runs).await.is_err() {
                        return;
                    }
                    delay = RETRY_DELAY;
                }
                Err(error) => {
                    tracing::debug!(vm = %plan.id, error = %error, "boot progress");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(MAX_RETRY_DELAY);
                }
            }
        }
    };
    tokio::select! {
        _ = over => {}
        () = ask => {}
    }
}

/// Progress of a VM to a stage of its start.
#[derive(Debug, PartialEq, Eq)]
enum StageProgress {
    /// It has reached the stage.
    Reached,
    /// It may reach the stage later.
    Pending,
    /// It is not running, and no operation starts it.
    Unreachable,
}

/// Kind of the operation in progress on a VM that is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpInProgress {
    /// It follows from an action of the guest or is a restart, so a start may follow.
    MayRestart,
    /// The VM is being stopped on request, or no operation is in progress.
    Other,
}

fn stage_progress(published: &Published, stage: WaitFor, op: OpInProgress) -> StageProgress {
    let run = published.record.run.as_ref();
    match published.record.state {
        VmState::Running if stage < WaitFor::Booted => StageProgress::Reached,
        VmState::Running if published.boot().is_some_and(BootView::is_over) => {
            StageProgress::Reached
        }
        VmState::Running => StageProgress::Pending,
        VmState::Starting
            if stage == WaitFor::Agent && run.is_some_and(|run| run.boot_id.is_some()) =>
        {
            StageProgress::Reached
        }
        VmState::Starting => StageProgress::Pending,
        // Created and not started yet, or about to be started.
        VmState::Stopped if published.operation.is_some() => StageProgress::Pending,
        // The guest powered off or rebooted: the operation decides which.
        VmState::Stopping if op == OpInProgress::MayRestart => StageProgress::Pending,
        VmState::Stopped
        | VmState::Paused
        | VmState::Stopping
        | VmState::Broken
        | VmState::Deleting => StageProgress::Unreachable,
    }
}

impl Engine {
    /// Waits until a VM has reached a stage of its start; returns its plan and boot progress. A
    /// running guest that does not finish booting in time is not an error.
    ///
    /// # Errors
    /// Not found, ambiguous, neither running nor starting, or not running in time.
    pub async fn wait_boot(
        &self,
        reference: &str,
        wait: Wait,
    ) -> Result<(VmPlan, BootView), ApiError> {
        let mut published = self.handle(reference)?.published;
        let wait_for_stage = async {
            let mut has_run = false;
            loop {
                let seen = published.borrow_and_update().clone();
                match stage_progress(&seen, wait.stage, self.op_in_progress(&seen)) {
                    StageProgress::Reached => return Ok(seen),
                    // A guest that is paused while it boots may be resumed in time.
                    StageProgress::Unreachable
                        if has_run && seen.record.state == VmState::Paused => {}
                    StageProgress::Unreachable if has_run => {
                        return Err(self.ended_early(&seen.record));
                    }
                    StageProgress::Unreachable => return Err(self.not_running(&seen.record)),
                    StageProgress::Pending => has_run |= seen.record.state == VmState::Running,
                }
                if published.changed().await.is_err() {
                    let text = format!("`{reference}` was deleted");
                    return Err(ApiError::new(ErrorCode::NotFound, text));
                }
            }
        };
        let limit = Duration::from_millis(wait.timeout_ms.min(MAX_WAIT_MS));
        let reached = tokio::time::timeout(limit, wait_for_stage).await;
        let seen = match reached {
            Ok(reached) => reached?,
            Err(_) => {
                let seen = published.borrow().clone();
                if seen.record.state != VmState::Running {
                    return Err(too_late(&seen.record, limit));
                }
                seen
            }
        };
        let view = seen.boot().cloned().unwrap_or_else(BootView::booting);
        Ok((seen.record.plan.clone(), view))
    }
}

impl Engine {
    fn op_in_progress(&self, published: &Published) -> OpInProgress {
        let op = published.operation.as_ref().and_then(|id| self.follow(id));
        match op {
            Some(op) if matches!(op.kind.as_str(), "exited" | "restart") => {
                OpInProgress::MayRestart
            }
            _ => OpInProgress::Other,
        }
    }

    /// The error of a wait for a guest that ran and ended before it had booted.
    fn ended_early(&self, record: &VmRecord) -> ApiError {
        let name = &record.plan.name;
        let text = format!("`{name}` ended before its guest had booted");
        let mut error = self.not_running(record);
        (error.code, error.message) = (ErrorCode::GuestFailed, text);
        error.hints = vec![Hint::log(name, VmLog::Console)];
        error
    }
}

fn too_late(record: &VmRecord, limit: Duration) -> ApiError {
    let (name, state) = (&record.plan.name, record.state.as_str());
    let text = format!("`{name}` is still {state} after {} s", limit.as_secs());
    ApiError::new(ErrorCode::Timeout, text).with_hint(Hint::show(name))
}

#[cfg(test)]
mod tests {
    use banger_api::boot::BootState;

    use super::OpInProgress::{MayRestart, Other};
    use super::*;
    use crate::plan::RunPlan;
    use crate::plan::tests::{plan, spec};

    fn published(state: VmState, boot_id: Option<&str>) -> Published {
        let mut record = VmRecord::new(plan("0123456789ab", "web"), spec(), Vec::new());
        record.state = state;
        let operation = banger_api::OpId::from_entropy(1);
        let mut run = RunPlan::new(operation, "host".into(), spec(), Vec::new());
        run.boot_id = boot_id.map(str::to_owned);
        record.run = Some(run);
        Published { record: Arc::new(record), operation: None, boot: None }
    }

    fn booted(mut published: Published, boot_id: &str, state: BootState) -> Published {
        let view = BootView { state, ..BootView::booting() };
        published.boot = Some(RunBoot { boot_id: boot_id.into(), view });
        published
    }

    #[test]
    fn stages_are_reached_in_order() {
        let starting = published(VmState::Starting, None);
        assert_eq!(stage_progress(&starting, WaitFor::Agent, Other), StageProgress::Pending);
        let hello = published(VmState::Starting, Some("one"));
        assert_eq!(stage_progress(&hello, WaitFor::Agent, Other), StageProgress::Reached);
        assert_eq!(stage_progress(&hello, WaitFor::Ready, Other), StageProgress::Pending);
        let running = published(VmState::Running, Some("one"));
        assert_eq!(stage_progress(&running, WaitFor::Ready, Other), StageProgress::Reached);
        assert_eq!(stage_progress(&running, WaitFor::Booted, Other), StageProgress::Pending);
        for (state, wanted) in [
            (BootState::Booting, StageProgress::Pending),
            (BootState::Running, StageProgress::Reached),
            (BootState::Degraded, StageProgress::Reached),
            (BootState::Unknown, StageProgress::Reached),
        ] {
            assert_eq!(
                stage_progress(&booted(running.clone(), "one", state), WaitFor::Booted, Other),
                wanted
            );
        }
    }

    #[test]
    fn the_boot_of_an_earlier_run_does_not_count() {
        let old = booted(published(VmState::Running, Some("two")), "one", BootState::Running);
        assert_eq!(
            (old.boot(), stage_progress(&old, WaitFor::Booted, Other)),
            (None, StageProgress::Pending)
        );
        let down = booted(published(VmState::Stopping, Some("one")), "one", BootState::Running);
        assert_eq!(down.boot(), None);
    }

    #[test]
    fn a_stopped_vm_is_awaited_only_during_an_operation() {
        let mut stopped = published(VmState::Stopped, None);
        assert_eq!(stage_progress(&stopped, WaitFor::Ready, Other), StageProgress::Unreachable);
        stopped.operation = Some(banger_api::OpId::from_entropy(2));
        assert_eq!(stage_progress(&stopped, WaitFor::Ready, Other), StageProgress::Pending);
        for state in [VmState::Stopping, VmState::Broken, VmState::Deleting, VmState::Paused] {
            assert_eq!(
                stage_progress(&published(state, Some("one")), WaitFor::Agent, Other),
                StageProgress::Unreachable
            );
        }
        let down = published(VmState::Stopping, Some("one"));
        assert_eq!(
            stage_progress(&down, WaitFor::Booted, MayRestart),
            StageProgress::Pending,
            "the reason is not known yet"
        );
    }
}
