//! The stop of a VM: the guest is asked, and ended when its grace period is over, also by a later
//! daemon.

use std::time::Duration;

use banger_api::ApiError;
use banger_api::operation::{OpEventKind, stage};
use banger_api::vm::{DEFAULT_GRACE_MS, MAX_GRACE_MS, StopKind, StoppedBecause, VmState};

use crate::drivers::ExitStory;
use crate::record::Presence;
use crate::runner::Worker;
use crate::state::VmEvent;

/// Interval at which a shutdown request that the guest did not receive is repeated.
const SHUTDOWN_RETRY: Duration = Duration::from_secs(1);

/// Shortest grace period of a stop that a later daemon continues, in milliseconds: the guest may
/// not have been asked yet.
const RESUMED_STOP_MIN_MS: u64 = 1000;

impl Worker {
    /// Stops the VM: requests a shutdown of the guest, waits for the grace period, then ends the
    /// VMM.
    ///
    /// # Errors
    /// Those of a failed undo; the VM is broken then.
    pub async fn stop(&mut self, grace_ms: u64) -> Result<Presence, ApiError> {
        if self.state() == VmState::Stopped {
            return Ok(Presence::Exists);
        }
        // A stop that an earlier daemon began may have found the VM paused.
        let may_be_paused = matches!(self.state(), VmState::Paused | VmState::Stopping);
        if self.state() != VmState::Stopping {
            let now = self.shared.drivers.host.now_unix_ms();
            if let Some(run) = &mut self.record.run {
                run.stop_by_ms = Some(now.saturating_add(grace_ms));
            }
            self.begin_teardown(VmEvent::StopAccepted).await?;
        }
        if may_be_paused && grace_ms > 0 {
            self.resume_for_shutdown().await;
        }
        let how = if grace_ms == 0 { StopKind::Killed } else { self.shut_down(grace_ms).await };
        tracing::info!(op = %self.op.id, vm = %self.record.plan.id, ?how, "stopped");
        let code = self.exit.borrow().as_ref().and_then(ExitStory::program_code);
        self.record.exit_code = code.filter(|_| self.record.plan.program.is_some());
        self.tear_down(StoppedBecause::Requested { how }).await?;
        Ok(Presence::Exists)
    }

    /// What is left of the grace period of a stop that an earlier daemon began, in milliseconds; at
    /// least [`RESUMED_STOP_MIN_MS`].
    pub(crate) fn stop_grace_left(&self) -> u64 {
        let now = self.shared.drivers.host.now_unix_ms();
        let end = self.record.run.as_ref().and_then(|run| run.stop_by_ms);
        end.map_or(DEFAULT_GRACE_MS, |end| {
            // The clock may have been set back.
            end.saturating_sub(now).clamp(RESUMED_STOP_MIN_MS, MAX_GRACE_MS)
        })
    }

    /// Requests a shutdown of the guest and waits for its end.
    async fn shut_down(&mut self, grace_ms: u64) -> StopKind {
        self.stages.enter(stage::SHUTDOWN);
        let guest = self.shared.drivers.guest.clone();
        let vm = self.record.plan.clone();
        let vmm = self.shared.drivers.vmm(&vm);
        let mut exit = self.exit.clone();
        let mut hurry = self.hurry.clone();
        let end = tokio::time::Instant::now() + Duration::from_millis(grace_ms);
        let ask = async {
            let left = || end.saturating_duration_since(tokio::time::Instant::now());
            while let Err(error) = guest.power_off(&vm, left()).await {
                tracing::warn!(vm = %vm.id, error = %error, "shutdown request failed");
                if let Ok(vmm) = &vmm
                    && let Some(button) = vmm.power_button()
                    && let Err(error) = button.press(&vm).await
                {
                    tracing::warn!(vm = %vm.id, error = %error, "the VMM's power button failed");
                }
                tokio::time::sleep(SHUTDOWN_RETRY).await;
            }
            std::future::pending::<()>().await;
        };
        let how = tokio::select! {
            // The end of the guest takes precedence over a kill and the timeout.
            biased;
            Ok(_) = exit.wait_for(Option::is_some) => StopKind::Graceful,
            Ok(_) = hurry.wait_for(|hurry| *hurry) => StopKind::Killed,
            () = tokio::time::sleep(Duration::from_millis(grace_ms)) => StopKind::KilledAfterGrace,
            () = ask => StopKind::Killed,
        };
        if how == StopKind::KilledAfterGrace {
            let grace = match grace_ms % 1000 {
                0 => format!("{} s", grace_ms / 1000),
                _ => format!("{grace_ms} ms"),
            };
            let text = format!("the guest did not shut down within {grace} and was killed");
            tracing::warn!(op = %self.op.id, vm = %self.record.plan.id, "{text}");
            self.op.emit(OpEventKind::Warning { text });
        }
        how
    }
}
