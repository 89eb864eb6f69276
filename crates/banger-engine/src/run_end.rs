//! A run that ends without having been asked to: the VMM died, the guest powered off or rebooted,
//! or the host was restarted.

use banger_api::ApiError;
use banger_api::vm::{StoppedBecause, VmState};

use crate::drivers::ExitStory;
use crate::record::Fate;
use crate::recovery::{self, Ending};
use crate::runner::Worker;
use crate::state::VmEvent;

impl Worker {
    /// The VMM ended by itself.
    ///
    /// # Errors
    /// What could not be undone, or the failure of the start that a reboot asked for.
    pub async fn exited(&mut self, story: &ExitStory) -> Result<Fate, ApiError> {
        tracing::warn!(vm = %self.record.plan.id, story = %story.summary(), "the VMM ended");
        self.run_over(recovery::ending(story)).await
    }

    /// The run is over, by itself or with the host.
    ///
    /// # Errors
    /// As [`Self::exited`].
    pub async fn run_over(&mut self, ending: Ending) -> Result<Fate, ApiError> {
        if self.state() != VmState::Stopping {
            self.end_accepted(VmEvent::Exited).await?;
        }
        self.end_run(ending).await
    }

    /// Undoes a run that is over, and starts again if the guest asked for a reboot.
    async fn end_run(&mut self, ending: Ending) -> Result<Fate, ApiError> {
        match ending {
            Ending::Stay(because) => {
                self.tear_down(because).await?;
                Ok(Fate::Lives)
            }
            Ending::Reboot => {
                self.tear_down(StoppedBecause::GuestPoweredOff).await?;
                let now = self.shared.drivers.host.now_unix_ms();
                if recovery::follow_reboot(&mut self.record.reboots, now) {
                    return self.start().await;
                }
                let text = "the guest rebooted itself too often and stays stopped".into();
                self.record.because = Some(StoppedBecause::VmmDied { story: text });
                self.save_anyway().await;
                Ok(Fate::Lives)
            }
        }
    }
}
