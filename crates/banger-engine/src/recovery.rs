//! Recovery decisions of a new daemon: facts in, one action per VM out. Pure, table-tested.

use banger_api::vm::{StoppedBecause, VmState};
use banger_api::{ApiError, ErrorCode, Hint, OpId};

use crate::drivers::{ExitStory, GuestEnd, RunFacts};
use crate::record::{Existence, VmRecord};

/// Facts about a VM on the host.
#[derive(Debug, Clone)]
pub struct Facts {
    /// State of its run.
    pub run: RunFacts,
    /// Whether the host was restarted since the start of its run.
    pub host: HostSince,
    /// Whether the logs of its open operations are legal.
    pub log: Result<(), String>,
}

/// Whether the host was restarted since the start of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSince {
    /// It was not.
    Same,
    /// It was: no process of the run can be alive.
    Restarted,
}

/// The recovery action of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// No work was in progress.
    Nothing,
    /// Its create is incomplete: undo it and remove the VM.
    UnwindCreate,
    /// Its start has not reached the commit point: undo it.
    UnwindStart,
    /// It is running: adopt it.
    Adopt {
        /// Process id of its VMM.
        vmm_pid: u32,
    },
    /// Its run is over: undo it.
    EndRun(Ending),
    /// A stop was in progress and the VM is still running: continue the stop.
    ResumeStop,
    /// A delete was in progress: continue it.
    FinishDelete,
    /// A reset was in progress: undo or complete it.
    SettleReset,
    /// The log is invalid: mark the VM as broken, change nothing else.
    MarkBroken(String),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The VM stays stopped.
    Stay(StoppedBecause),
    /// The guest rebooted: start the VM again.
    Reboot,
}

/// Decides on the recovery of one VM.
pub fn decide(record: &VmRecord, facts: &Facts) -> Action {
    if let Err(illegal) = &facts.log {
        return Action::MarkBroken(illegal.clone());
    }
    match record.state {
        VmState::Broken => Action::Nothing,
        VmState::Deleting => Action::FinishDelete,
        VmState::Stopped => match record.existence {
            Existence::Creating => Action::UnwindCreate,
            Existence::Deleting => Action::FinishDelete,
            Existence::Created if record.reset.is_some() => Action::SettleReset,
            Existence::Created => Action::Nothing,
        },
        VmState::Starting => Action::UnwindStart,
        VmState::Running | VmState::Paused => match (&facts.host, &facts.run) {
            // Before the restart: an automatic start must not undo the guest's own poweroff.
            (HostSince::Restarted, RunFacts::Ended(story))
                if story.guest == Some(GuestEnd::Poweroff) =>
            {
                Action::EndRun(ending(story))
            }
            (HostSince::Restarted, _) => {
                Action::EndRun(Ending::Stay(StoppedBecause::HostRestarted))
            }
            (HostSince::Same, RunFacts::Alive { vmm_pid }) => Action::Adopt { vmm_pid: *vmm_pid },
            (HostSince::Same, RunFacts::Ended(story)) => Action::EndRun(ending(story)),
            (HostSince::Same, RunFacts::Nothing) => Action::EndRun(Ending::Stay(died(
                &ExitStory::unknown("the VMM and its shim ended without a record"),
            ))),
        },
        VmState::Stopping => match (&facts.host, &facts.run) {
            (HostSince::Same, RunFacts::Alive { .. }) => Action::ResumeStop,
            (HostSince::Restarted, _) => {
                Action::EndRun(Ending::Stay(StoppedBecause::HostRestarted))
            }
            (HostSince::Same, RunFacts::Ended(_) | RunFacts::Nothing) => {
                let how = banger_api::vm::StopKind::Graceful;
                Action::EndRun(Ending::Stay(StoppedBecause::Requested { how }))
            }
        },
    }
}

/// The ending of a run whose VMM ended without a request.
pub fn ending(story: &ExitStory) -> Ending {
    match story.guest {
        Some(GuestEnd::Poweroff) => Ending::Stay(match story.program_code() {
            Some(code) => StoppedBecause::ProgramEnded { code },
            None => StoppedBecause::GuestPoweredOff,
        }),
        Some(GuestEnd::Reboot) => Ending::Reboot,
        Some(GuestEnd::Panic) | None => Ending::Stay(died(story)),
    }
}

fn died(story: &ExitStory) -> StoppedBecause {
    let summary = story.summary();
    let mut text = match story.guest {
        Some(GuestEnd::Panic) => format!("the guest's kernel panicked; {summary}"),
        Some(GuestEnd::Poweroff | GuestEnd::Reboot) | None => summary,
    };
    let tail = story.tail();
    if !tail.is_empty() {
        text.push('\n');
        text.push_str(&tail);
    }
    StoppedBecause::VmmDied { story: text }
}

/// Maximum number of guest reboots within [`REBOOT_WINDOW_MS`] after which the VM is started again.
pub const MAX_REBOOTS: usize = 5;
/// Ten minutes.
pub const REBOOT_WINDOW_MS: u64 = 10 * 60 * 1000;

/// Whether the VM is started again after one more reboot; drops reboots outside the window.
pub fn allow_reboot(reboots: &mut Vec<u64>, now_unix_ms: u64) -> bool {
    reboots.retain(|at| now_unix_ms.saturating_sub(*at) < REBOOT_WINDOW_MS);
    if reboots.len() >= MAX_REBOOTS {
        return false;
    }
    reboots.push(now_unix_ms);
    true
}

/// The error of an operation that an earlier daemon left open.
pub fn interrupted(op: &OpId) -> ApiError {
    let text = "the daemon ended during this operation, whose steps were undone or completed";
    ApiError::new(ErrorCode::Interrupted, text).with_hint(Hint::Retry).in_operation(op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{plan, spec};

    fn facts(run: RunFacts, host: HostSince) -> Facts {
        Facts { run, host, log: Ok(()) }
    }

    fn ended(guest: Option<GuestEnd>) -> RunFacts {
        RunFacts::Ended(ExitStory { guest, ..ExitStory::unknown("qemu was killed by signal 9") })
    }

    fn action(state: VmState, existence: Existence, facts: &Facts) -> Action {
        let mut record = VmRecord::new(plan("0123456789ab", "web"), spec(), Vec::new());
        record.state = state;
        record.existence = existence;
        decide(&record, facts)
    }

    #[test]
    fn the_table() {
        use Existence::{Created, Creating, Deleting};
        use HostSince::{Restarted, Same};
        let alive = || RunFacts::Alive { vmm_pid: 7 };
        let killed = StoppedBecause::VmmDied { story: "qemu was killed by signal 9".into() };
        let restarted = Action::EndRun(Ending::Stay(StoppedBecause::HostRestarted));
        let cases = [
            (VmState::Stopped, Created, RunFacts::Nothing, Same, Action::Nothing),
            (VmState::Stopped, Creating, RunFacts::Nothing, Same, Action::UnwindCreate),
            (VmState::Stopped, Deleting, RunFacts::Nothing, Same, Action::FinishDelete),
            (VmState::Deleting, Deleting, RunFacts::Nothing, Same, Action::FinishDelete),
            (VmState::Starting, Created, alive(), Same, Action::UnwindStart),
            (VmState::Starting, Created, RunFacts::Nothing, Same, Action::UnwindStart),
            (VmState::Starting, Created, RunFacts::Nothing, Restarted, Action::UnwindStart),
            (VmState::Running, Created, alive(), Same, Action::Adopt { vmm_pid: 7 }),
            (VmState::Paused, Created, alive(), Same, Action::Adopt { vmm_pid: 7 }),
            (VmState::Running, Created, alive(), Restarted, restarted.clone()),
            (VmState::Running, Created, ended(None), Same, Action::EndRun(Ending::Stay(killed))),
            (
                VmState::Running,
                Created,
                ended(Some(GuestEnd::Poweroff)),
                Same,
                Action::EndRun(Ending::Stay(StoppedBecause::GuestPoweredOff)),
            ),
            (
                VmState::Running,
                Created,
                ended(Some(GuestEnd::Reboot)),
                Same,
                Action::EndRun(Ending::Reboot),
            ),
            (
                VmState::Running,
                Created,
                ended(Some(GuestEnd::Poweroff)),
                Restarted,
                Action::EndRun(Ending::Stay(StoppedBecause::GuestPoweredOff)),
            ),
            (VmState::Running, Created, ended(None), Restarted, restarted.clone()),
            (VmState::Stopping, Created, alive(), Same, Action::ResumeStop),
            (VmState::Stopping, Created, RunFacts::Nothing, Restarted, restarted),
            (VmState::Broken, Created, alive(), Same, Action::Nothing),
        ];
        for (state, existence, run, host, expected) in cases {
            let facts = facts(run.clone(), host);
            assert_eq!(action(state, existence, &facts), expected, "{state:?} {run:?} {host:?}");
        }
    }

    #[test]
    fn a_reset_is_settled_when_the_vm_is_stopped() {
        use crate::record::Reset;
        let mut record = VmRecord::new(plan("0123456789ab", "web"), spec(), Vec::new());
        record.existence = Existence::Created;
        for reset in [Reset::Preparing, Reset::Decided] {
            record.reset = Some(reset);
            let facts = facts(RunFacts::Nothing, HostSince::Same);
            assert_eq!(decide(&record, &facts), Action::SettleReset);
        }
        record.existence = Existence::Deleting;
        let facts = facts(RunFacts::Nothing, HostSince::Same);
        assert_eq!(decide(&record, &facts), Action::FinishDelete);
    }

    #[test]
    fn an_illegal_log_marks_the_vm_as_broken_in_every_state() {
        for state in VmState::ALL {
            let facts = Facts {
                run: RunFacts::Alive { vmm_pid: 1 },
                host: HostSince::Same,
                log: Err("step x".into()),
            };
            let action = action(state, Existence::Created, &facts);
            assert_eq!(action, Action::MarkBroken("step x".into()));
        }
    }

    #[test]
    fn five_reboots_in_ten_minutes_are_allowed() {
        let mut reboots = Vec::new();
        for n in 0..5 {
            assert!(allow_reboot(&mut reboots, n * 1000));
        }
        assert!(!allow_reboot(&mut reboots, 6000));
        assert!(allow_reboot(&mut reboots, REBOOT_WINDOW_MS));
    }
}
