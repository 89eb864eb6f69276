//! The end of a run without a request: the VMM died, the guest powered off or rebooted, or the host
//! was restarted.

use banger_api::ApiError;
use banger_api::vm::{StoppedBecause, VmState};

use crate::drivers::ExitStory;
use crate::record::Presence;
use crate::recovery::{self, Ending};
use crate::runner::Worker;
use crate::state::VmEvent;

impl Worker {
    /// Tears down a run whose VMM has ended; starts the VM again after a reboot of the guest.
    ///
    /// # Errors
    /// Those of a failed undo, or of the start after a reboot.
    pub async fn exited(&mut self, story: &ExitStory) -> Result<Presence, ApiError> {
        tracing::warn!(vm = %self.record.plan.id, story = %story.summary(), "the VMM ended");
        self.run_over(recovery::ending(story)).await
    }

    /// As [`Self::exited`], with a known ending.
    ///
    /// # Errors
    /// As [`Self::exited`].
    pub async fn run_over(&mut self, ending: Ending) -> Result<Presence, ApiError> {
        if self.state() != VmState::Stopping {
            self.begin_teardown(VmEvent::Exited).await?;
        }
        self.end_run(ending).await
    }

    /// Undoes the run, and starts the VM again after a reboot.
    async fn end_run(&mut self, ending: Ending) -> Result<Presence, ApiError> {
        match ending {
            Ending::Stay(StoppedBecause::ProgramEnded { code }) => {
                // Any guest can print such a line.
                let because = match self.record.plan.program {
                    Some(_) => StoppedBecause::ProgramEnded { code },
                    None => StoppedBecause::GuestPoweredOff,
                };
                self.record.exit_code = self.record.plan.program.as_ref().map(|_| code);
                self.tear_down(because).await?;
                Ok(Presence::Exists)
            }
            Ending::Stay(because) => {
                self.tear_down(because).await?;
                Ok(Presence::Exists)
            }
            Ending::Reboot => {
                self.tear_down(StoppedBecause::GuestPoweredOff).await?;
                let now = self.shared.drivers.host.now_unix_ms();
                if recovery::allow_reboot(&mut self.record.reboots, now) {
                    return self.start().await;
                }
                let text = "the guest rebooted too often, so the VM stays stopped".into();
                self.record.because = Some(StoppedBecause::VmmDied { story: text });
                self.save_best_effort().await;
                Ok(Presence::Exists)
            }
        }
    }
}
