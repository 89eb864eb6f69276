//! Pause and resume of a VM.
//!
//! ```text
//! pause     pause the vCPUs · commit Paused
//! resume    resume the vCPUs · set the guest's clock · commit Running
//! ```
//!
//! A failure before the commit is undone by the opposite change. A daemon that ends before the
//! commit leaves the old state on record, and the next one makes the vCPUs match it
//! ([`Worker::match_vcpus`]). The guest's memory and its connections stay.

use std::sync::Arc;

use banger_api::operation::OpEventKind;
use banger_api::vm::VmState;
use banger_api::{ApiError, ErrorCode};

use crate::drivers::{ClockHistory, Vmm};
use crate::lists::ListName;
use crate::plan::RunPlan;
use crate::record::{Presence, VmRecord};
use crate::runner::Worker;
use crate::state::VmEvent;
use crate::store::Durability;
use crate::vm_jobs::event;

fn apply(change: VmEvent) -> impl FnOnce(&mut VmRecord) -> Result<(), ApiError> {
    move |record| event(record, change).map(|_| ())
}

impl Worker {
    /// Pauses the vCPUs.
    ///
    /// # Errors
    /// The VMM's or the store's; the VM runs then, or it is paused if it cannot be resumed.
    pub async fn pause(&mut self) -> Result<Presence, ApiError> {
        self.crash(ListName::Start, "pause", "before");
        let paused = match self.pause_vcpus().await {
            Ok(()) => {
                self.crash(ListName::Start, "pause", "applied");
                self.decide(Durability::Process, apply(VmEvent::Paused)).await
            }
            failed => failed,
        };
        self.crash(ListName::Start, "pause", "after");
        match paused {
            Ok(()) => Ok(Presence::Exists),
            Err(error) => Err(self.pause_failed(error).await),
        }
    }

    async fn pause_failed(&mut self, mut error: ApiError) -> ApiError {
        let Err(failed) = self.resume_vcpus().await else { return error };
        error.also(failed);
        // Recorded as paused, so that the user can resume it.
        if apply(VmEvent::Paused)(&mut self.record).is_ok() {
            self.save_best_effort().await;
        }
        error
    }

    /// Resumes the vCPUs and sets the guest's clock.
    ///
    /// # Errors
    /// The VMM's or the store's; the VM is paused then, or it runs if it cannot be paused again.
    pub async fn resume(&mut self) -> Result<Presence, ApiError> {
        self.crash(ListName::Start, "resume", "before");
        let resumed = match self.resume_vcpus().await {
            Ok(()) => {
                self.crash(ListName::Start, "resume", "applied");
                self.set_clock().await;
                self.decide(Durability::Process, apply(VmEvent::Resumed)).await
            }
            failed => failed,
        };
        self.crash(ListName::Start, "resume", "after");
        let Err(mut error) = resumed else { return Ok(Presence::Exists) };
        if let Err(failed) = self.pause_vcpus().await {
            error.also(failed);
        }
        Err(error)
    }

    /// Resumes a paused guest that is about to be asked to shut down. If that fails, the guest is
    /// killed at the end of the grace period.
    pub(crate) async fn resume_for_shutdown(&mut self) {
        if let Err(error) = self.resume_vcpus().await {
            let (vm, causes) = (&self.record.plan.id, &error.causes);
            tracing::warn!(%vm, error = %error, ?causes, "cannot resume for the shutdown");
            self.op.emit(OpEventKind::Warning { text: error.message });
        }
    }

    /// Makes the vCPUs of an adopted VM match its record: a pause or resume that an earlier daemon
    /// did not commit is undone.
    pub(crate) async fn match_vcpus(&mut self) {
        let matched = match self.state() {
            VmState::Paused => self.pause_vcpus().await,
            _ => self.resume_vcpus().await,
        };
        if let Err(error) = matched {
            let (vm, causes) = (&self.record.plan.id, &error.causes);
            tracing::error!(%vm, error = %error, ?causes, "vCPUs");
            self.op.emit(OpEventKind::Warning { text: error.message });
        }
    }

    async fn pause_vcpus(&self) -> Result<(), ApiError> {
        let (vmm, run) = self.running_vmm()?;
        vmm.pause(&self.record.plan, run).await
    }

    async fn resume_vcpus(&self) -> Result<(), ApiError> {
        let (vmm, run) = self.running_vmm()?;
        vmm.resume(&self.record.plan, run).await
    }

    fn running_vmm(&self) -> Result<(Arc<dyn Vmm>, &RunPlan), ApiError> {
        let vmm = self.shared.drivers.vmm(&self.record.plan)?;
        let run = self.record.run.as_ref().ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, "a pause or resume without an active run")
        })?;
        Ok((vmm, run))
    }

    /// Sets the guest's clock, which may have stood still. If that fails, the resume succeeds with
    /// a warning: the daemon compares the clock again.
    async fn set_clock(&self) {
        let vm = &self.record.plan;
        let interrupt = self.interrupt();
        let compared = tokio::select! {
            compared = self.shared.drivers.guest.correct_clock(vm, ClockHistory::Interrupted) => {
                compared
            }
            // A kill, or the end of the VMM: the comparison changes nothing on the host.
            _ = interrupt.raised() => return,
        };
        if let Err(error) = compared {
            tracing::warn!(vm = %vm.id, error = %error, causes = ?error.causes, "clock");
            let name = &vm.name;
            let text = format!("the clock of `{name}` is not set: its agent does not answer");
            self.op.emit(OpEventKind::Warning { text });
        }
    }
}
