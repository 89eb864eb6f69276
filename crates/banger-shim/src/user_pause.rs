//! The vCPUs: paused on request, paused by QEMU for a failed disk write, or running.
//!
//! Both reasons are independent, and QEMU knows only one state (its docs/interop/qmp, commands
//! `stop` and `cont`, events STOP and RESUME). The vCPUs run only if there is no reason to pause
//! them: a resume on request does not continue a guest that is held for its disk, and space on the
//! disk does not continue a guest that is paused on request. Pure.

use std::time::Instant;

use banger_shim::VcpuState;

use crate::disk_pause::DiskPause;

/// A command to the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VcpuCommand {
    /// Stop the vCPUs.
    Stop,
    /// Continue.
    Continue,
}

/// State of the vCPUs.
#[derive(Debug, Default)]
pub struct Vcpus {
    /// Whether QEMU paused the guest for a failed disk write.
    pub disk_pause: DiskPause,
    /// Whether a pause is requested.
    requested: bool,
    /// Whether QEMU has reported that the vCPUs are stopped.
    stopped: bool,
}

impl Vcpus {
    /// The vCPUs were stopped.
    pub fn stopped(&mut self, now: Instant) {
        self.stopped = true;
        self.disk_pause.stopped(now);
    }

    /// The vCPUs run again.
    pub fn resumed(&mut self, now: Instant) {
        self.stopped = false;
        self.disk_pause.resumed(now);
    }

    /// Whether a pause is requested from now on; returns the command that leads there. Repeated
    /// requests repeat a command that was lost.
    pub fn request(&mut self, paused: bool) -> Option<VcpuCommand> {
        let was_requested = std::mem::replace(&mut self.requested, paused);
        if paused {
            return (!self.stopped).then_some(VcpuCommand::Stop);
        }
        // QEMU may not have reported yet that it carried out an earlier `stop`. A guest that is
        // held for its disk is due for a check instead.
        let stops = self.stopped || was_requested;
        (stops && !self.disk_pause.is_held()).then_some(VcpuCommand::Continue)
    }

    /// When to check the disk of a held guest.
    pub fn disk_check_due(&self) -> Option<Instant> {
        self.disk_pause.due().filter(|_| !self.requested)
    }

    /// The state with regard to requests.
    pub fn state(&self) -> VcpuState {
        let held = self.disk_pause.is_held();
        if self.stopped && (self.requested || !held) {
            VcpuState::Paused
        } else {
            VcpuState::Running
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn held() -> (Vcpus, Instant) {
        let (mut vcpus, now) = (Vcpus::default(), Instant::now());
        vcpus.disk_pause.write_failed("stop", true, "No space left on device");
        vcpus.stopped(now);
        (vcpus, now)
    }

    #[test]
    fn a_pause_ends_with_a_resume_only() {
        let (mut vcpus, now) = (Vcpus::default(), Instant::now());
        assert_eq!(vcpus.request(false), None);
        assert_eq!(vcpus.request(true), Some(VcpuCommand::Stop));
        assert_eq!(vcpus.state(), VcpuState::Running, "until QEMU reports it");
        assert_eq!(vcpus.request(true), Some(VcpuCommand::Stop), "the command may be lost");
        vcpus.stopped(now);
        assert_eq!((vcpus.state(), vcpus.request(true)), (VcpuState::Paused, None));
        assert_eq!((vcpus.disk_check_due(), vcpus.disk_pause.trouble()), (None, None));
        assert_eq!(vcpus.request(false), Some(VcpuCommand::Continue));
        assert_eq!(vcpus.state(), VcpuState::Paused, "until QEMU reports it");
        vcpus.resumed(now);
        assert_eq!(vcpus.state(), VcpuState::Running);
    }

    #[test]
    fn space_on_the_disk_does_not_continue_a_guest_paused_on_request() {
        let (mut vcpus, now) = held();
        assert_eq!(vcpus.state(), VcpuState::Running, "no user paused it");
        assert_eq!(vcpus.request(true), None, "it is stopped already");
        assert_eq!(vcpus.state(), VcpuState::Paused);
        assert_eq!(vcpus.disk_check_due(), None);
        assert_eq!(vcpus.request(false), None, "the disk decides");
        assert_eq!(vcpus.state(), VcpuState::Running);
        let due = vcpus.disk_check_due().unwrap();
        assert!(due > now && vcpus.disk_pause.try_again(due, None));
        vcpus.resumed(due);
        assert_eq!((vcpus.state(), vcpus.disk_pause.is_held()), (VcpuState::Running, false));
    }

    #[test]
    fn a_disk_that_fails_while_a_pause_is_under_way_holds_the_guest_after_it() {
        let (mut vcpus, now) = (Vcpus::default(), Instant::now());
        assert_eq!(vcpus.request(true), Some(VcpuCommand::Stop));
        vcpus.disk_pause.write_failed("stop", true, "No space left on device");
        vcpus.stopped(now);
        assert_eq!((vcpus.state(), vcpus.disk_check_due()), (VcpuState::Paused, None));
        assert_eq!(vcpus.request(false), None);
        assert!(vcpus.disk_check_due().is_some());
    }

    #[test]
    fn a_resume_before_the_pause_is_reported_continues_the_guest() {
        let mut vcpus = Vcpus::default();
        assert_eq!(vcpus.request(true), Some(VcpuCommand::Stop));
        assert_eq!(vcpus.request(false), Some(VcpuCommand::Continue));
        vcpus.stopped(Instant::now());
        assert_eq!(vcpus.request(false), Some(VcpuCommand::Continue), "the command may be lost");
        vcpus.resumed(Instant::now());
        assert_eq!((vcpus.state(), vcpus.request(false)), (VcpuState::Running, None));
    }

    #[test]
    fn a_pause_after_a_resume_of_the_disk_is_carried_out() {
        let (mut vcpus, now) = held();
        vcpus.resumed(now + Duration::from_secs(1));
        assert_eq!(vcpus.request(true), Some(VcpuCommand::Stop));
    }
}
