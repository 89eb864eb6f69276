//! How far the guests of running VMs have booted: asked of each guest's agent once a run, kept in
//! memory, and waited for by commands that need a booted guest.
//!
//! The agent answers when its init has booted, so nothing is polled. A new daemon asks again: the
//! agent remembers.

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

/// Longest question to an agent; it answers earlier when it knows.
const QUESTION: Duration = Duration::from_secs(60);

/// Pause before an agent that did not answer is asked again, and the longest it grows to.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The boot of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBoot {
    /// Boot id of the guest.
    pub boot_id: String,
    /// What its agent reports.
    pub view: BootView,
}

impl Published {
    /// How far the guest of the present run has booted, while it runs.
    pub fn boot(&self) -> Option<&BootView> {
        let present = running_boot_id(&self.record)?;
        self.boot.as_ref().filter(|boot| boot.boot_id == present).map(|boot| &boot.view)
    }
}

/// The boot id of a VM that runs.
pub fn running_boot_id(record: &VmRecord) -> Option<&str> {
    let runs = matches!(record.state, VmState::Running | VmState::Paused);
    record.run.as_ref().filter(|_| runs)?.boot_id.as_deref()
}

/// Follows the boot of a run that has begun; `followed` is the boot id of the one before.
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

/// Asks the agent until its guest has booted or the run is over, and publishes what it says.
async fn follow(
    shared: Arc<Shared>,
    publisher: watch::Sender<Published>,
    plan: VmPlan,
    boot_id: String,
) {
    let mut published = publisher.subscribe();
    let over = published.wait_for(|published| running_boot_id(&published.record) != Some(&boot_id));
    let ask = async {
        let mut pause = PAUSE;
        loop {
            match shared.drivers.guest.boot_progress(&plan, QUESTION).await {
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
                    pause = PAUSE;
                }
                Err(error) => {
                    tracing::debug!(vm = %plan.id, error = %error, "boot progress");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    };
    tokio::select! {
        _ = over => {}
        () = ask => {}
    }
}

/// Where a VM is on the way to a stage.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It is there.
    There,
    /// It may yet come there.
    Later,
    /// It does not run and nothing starts it.
    Never,
}

/// What an operation in progress does to a VM that is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// It follows from what the guest did: its end is not known yet, and may be a new start.
    Follows,
    /// The VM is being stopped on request, or nothing is in progress.
    Other,
}

fn way(published: &Published, stage: WaitFor, meanwhile: Meanwhile) -> Way {
    let run = published.record.run.as_ref();
    match published.record.state {
        VmState::Running if stage < WaitFor::Booted => Way::There,
        VmState::Running if published.boot().is_some_and(BootView::is_over) => Way::There,
        VmState::Running => Way::Later,
        VmState::Starting
            if stage == WaitFor::Agent && run.is_some_and(|run| run.boot_id.is_some()) =>
        {
            Way::There
        }
        VmState::Starting => Way::Later,
        // Made and not started yet, or about to be started.
        VmState::Stopped if published.operation.is_some() => Way::Later,
        // The guest ended by itself: the reason comes next.
        VmState::Stopping if meanwhile == Meanwhile::Follows => Way::Later,
        VmState::Stopped
        | VmState::Paused
        | VmState::Stopping
        | VmState::Broken
        | VmState::Deleting => Way::Never,
    }
}

impl Engine {
    /// Waits until a VM has come to a stage of its start, for its plan and how far its guest has
    /// booted. A guest that runs and does not finish booting in time is no error.
    ///
    /// # Errors
    /// Not found, ambiguous, not running and not being started, or not running in time.
    pub async fn wait_boot(
        &self,
        reference: &str,
        wait: Wait,
    ) -> Result<(VmPlan, BootView), ApiError> {
        let mut published = self.handle(reference)?.published;
        let reached = async {
            let mut has_run = false;
            loop {
                let seen = published.borrow_and_update().clone();
                match way(&seen, wait.stage, self.meanwhile(&seen)) {
                    Way::There => return Ok(seen),
                    Way::Never if has_run => return Err(self.ended_early(&seen.record)),
                    Way::Never => return Err(self.not_running(&seen.record)),
                    Way::Later => has_run |= seen.record.state == VmState::Running,
                }
                if published.changed().await.is_err() {
                    let text = format!("`{reference}` was deleted");
                    return Err(ApiError::new(ErrorCode::NotFound, text));
                }
            }
        };
        let limit = Duration::from_millis(wait.timeout_ms.min(MAX_WAIT_MS));
        let reached = tokio::time::timeout(limit, reached).await;
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
    fn meanwhile(&self, published: &Published) -> Meanwhile {
        let op = published.operation.as_ref().and_then(|id| self.follow(id));
        match op {
            Some(op) if matches!(op.kind.as_str(), "exited" | "restart") => Meanwhile::Follows,
            _ => Meanwhile::Other,
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

    use super::Meanwhile::{Follows, Other};
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
    fn each_stage_is_reached_in_its_turn() {
        let starting = published(VmState::Starting, None);
        assert_eq!(way(&starting, WaitFor::Agent, Other), Way::Later);
        let hello = published(VmState::Starting, Some("one"));
        assert_eq!(way(&hello, WaitFor::Agent, Other), Way::There);
        assert_eq!(way(&hello, WaitFor::Ready, Other), Way::Later);
        let running = published(VmState::Running, Some("one"));
        assert_eq!(way(&running, WaitFor::Ready, Other), Way::There);
        assert_eq!(way(&running, WaitFor::Booted, Other), Way::Later);
        for (state, wanted) in [
            (BootState::Booting, Way::Later),
            (BootState::Running, Way::There),
            (BootState::Degraded, Way::There),
            (BootState::Unknown, Way::There),
        ] {
            assert_eq!(way(&booted(running.clone(), "one", state), WaitFor::Booted, Other), wanted);
        }
    }

    #[test]
    fn the_boot_of_an_earlier_run_does_not_count() {
        let old = booted(published(VmState::Running, Some("two")), "one", BootState::Running);
        assert_eq!((old.boot(), way(&old, WaitFor::Booted, Other)), (None, Way::Later));
        let down = booted(published(VmState::Stopping, Some("one")), "one", BootState::Running);
        assert_eq!(down.boot(), None);
    }

    #[test]
    fn a_stopped_vm_is_awaited_only_during_an_operation() {
        let mut stopped = published(VmState::Stopped, None);
        assert_eq!(way(&stopped, WaitFor::Ready, Other), Way::Never);
        stopped.operation = Some(banger_api::OpId::from_entropy(2));
        assert_eq!(way(&stopped, WaitFor::Ready, Other), Way::Later);
        for state in [VmState::Stopping, VmState::Broken, VmState::Deleting, VmState::Paused] {
            assert_eq!(way(&published(state, Some("one")), WaitFor::Agent, Other), Way::Never);
        }
        let down = published(VmState::Stopping, Some("one"));
        assert_eq!(way(&down, WaitFor::Booted, Follows), Way::Later, "why is not known yet");
    }
}
