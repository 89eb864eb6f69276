//! How far the guests of running VMs have booted: asked of each guest's agent once a run, kept in
//! memory, and waited for by commands that need a booted guest.
//!
//! The agent answers when its init has booted, so nothing is polled. A new daemon asks again: the
//! agent remembers.

use std::sync::Arc;
use std::time::Duration;

use banger_api::boot::{BootView, MAX_WAIT_MS, Wait, WaitFor};
use banger_api::vm::VmState;
use banger_api::{ApiError, ErrorCode};
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

/// Asks the agent until its guest has booted or the run is over, and publishes what it says.
pub async fn follow(
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
    OnTheWay,
    /// It does not run and nothing starts it.
    Never,
}

fn way(published: &Published, stage: WaitFor) -> Way {
    let run = published.record.run.as_ref();
    match published.record.state {
        VmState::Running if stage < WaitFor::Booted => Way::There,
        VmState::Running if published.boot().is_some_and(BootView::is_over) => Way::There,
        VmState::Running => Way::OnTheWay,
        VmState::Starting
            if stage == WaitFor::Agent && run.is_some_and(|run| run.boot_id.is_some()) =>
        {
            Way::There
        }
        VmState::Starting => Way::OnTheWay,
        // Made and not started yet, or about to be started.
        VmState::Stopped if published.operation.is_some() => Way::OnTheWay,
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
            loop {
                let seen = published.borrow_and_update().clone();
                match way(&seen, wait.stage) {
                    Way::There => return Ok(seen),
                    Way::Never => return Err(self.not_running(&seen.record)),
                    Way::OnTheWay => {}
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

fn too_late(record: &VmRecord, limit: Duration) -> ApiError {
    let (name, state) = (&record.plan.name, record.state.as_str());
    let text = format!("`{name}` is still {state} after {} s", limit.as_secs());
    ApiError::new(ErrorCode::Timeout, text)
        .with_hint(format!("`banger vm show {name}` shows what it is doing"))
}
