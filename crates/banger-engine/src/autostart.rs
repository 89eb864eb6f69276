//! Automatic start of VMs when the daemon starts: after a restart of the host, or after all
//! processes of banger were killed.
//!
//! A VM is started if it has the setting, its user wants it to run ([`Wanted`]), and it does not
//! run. A stop, a kill and a poweroff in the guest end that wish; the death of a VMM does not. Each
//! daemon tries once, and after [`MAX_FAILURES`] failures in a row none does until a user starts
//! the VM, so that a start that fails or that ends the daemon is not repeated endlessly.

use std::sync::Arc;

use banger_api::ApiError;
use banger_api::operation::VmTag;
use banger_api::vm::{Lifetime, StoppedBecause, VmState};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::ops::Op;
use crate::record::{Existence, Presence, VmRecord, Wanted};
use crate::runner::Worker;
use crate::store::Durability;
use crate::vm_task::{Message, VmHandle};

/// Maximum number of automatic starts in a row that fail or are not completed.
pub const MAX_FAILURES: u32 = 3;

/// Maximum number of VMs that are started automatically at the same time.
const MAX_PARALLEL: usize = 8;

/// Completes a record of an earlier version, which has no wish: a VM that runs is wanted.
pub(crate) fn complete(record: &mut VmRecord) {
    if matches!(record.state, VmState::Running | VmState::Paused) {
        record.wanted = Wanted::Running;
    }
}

/// Whether the setting and the user's wish require a start.
fn is_wanted(record: &VmRecord) -> bool {
    record.spec.autostart
        && record.wanted == Wanted::Running
        && record.existence == Existence::Created
        && record.plan.lifetime == Lifetime::Keep
}

/// Whether a new daemon starts the VM.
pub fn is_due(record: &VmRecord) -> bool {
    is_wanted(record)
        && record.state == VmState::Stopped
        && record.autostart_failures < MAX_FAILURES
}

/// The problem of a VM that was not started automatically; for `vm show` and `doctor`.
pub fn notice(record: &VmRecord) -> Option<String> {
    let name = &record.plan.name;
    if !is_wanted(record) {
        return None;
    }
    if record.state == VmState::Broken {
        return Some(format!("`{name}` is broken, so it is not started automatically"));
    }
    let failures = record.autostart_failures;
    if record.state != VmState::Stopped || failures == 0 {
        return None;
    }
    let failed = match failures {
        1 => format!("the automatic start of `{name}` failed"),
        many => format!("the last {many} automatic starts of `{name}` failed"),
    };
    let cause = match &record.because {
        Some(StoppedBecause::StartFailed { operation, error }) => {
            format!(": {error} ({operation})")
        }
        _ => String::new(),
    };
    let next = if failures < MAX_FAILURES {
        "the next daemon tries again"
    } else {
        "it is not tried again until a user starts the VM"
    };
    Some(format!("{failed}{cause}; {next}"))
}

/// Starts VMs until all have ended their starts; at most [`MAX_PARALLEL`], and at most as many as
/// the host has CPUs, at the same time.
async fn start_all(due: Vec<VmHandle>, parallel: usize) {
    let mut running = JoinSet::new();
    for handle in due {
        if running.len() >= parallel {
            running.join_next().await;
        }
        running.spawn(start(handle));
    }
    while running.join_next().await.is_some() {}
}

async fn start(handle: VmHandle) {
    let (reply, answer) = oneshot::channel();
    if handle.mailbox.send(Message::Autostart { reply }).await.is_err() {
        return;
    }
    // Without an operation, the VM was deleted, or a user decided before its turn came.
    let Ok(Some(op)) = answer.await else { return };
    // The failure is in the log, in the record of the operation and in the VM.
    let _ = Op::wait(&op).await;
}

impl Engine {
    /// Starts the VMs that a new daemon starts by itself, the oldest first, as operations on
    /// record. Resolves when all of them have ended. If the future is dropped, starts in progress
    /// continue, and the others are left to the next daemon.
    pub async fn autostart(&self) {
        let mut due: Vec<(u64, VmHandle)> = Vec::new();
        for handle in self.registry().vms.values() {
            let record = handle.published.borrow().record.clone();
            if let Some(problem) = notice(&record) {
                tracing::warn!(vm = %record.plan.id, "{problem}");
            }
            // Recovery may still work on it, so its state is not final.
            if is_wanted(&record) {
                due.push((record.plan.created_unix_ms, handle.clone()));
            }
        }
        due.sort_by_key(|(created, _)| *created);
        let cpus = self.shared.drivers.host.capacity().cpus as usize;
        let due = due.into_iter().map(|(_, handle)| handle).collect();
        start_all(due, cpus.clamp(1, MAX_PARALLEL)).await;
    }

    /// Number of VMs with the setting.
    pub fn with_autostart(&self) -> usize {
        self.all().iter().filter(|vm| vm.record.spec.autostart).count()
    }

    /// VMs that were not started automatically, with the reason.
    pub fn not_autostarted(&self) -> Vec<(VmTag, VmState, String)> {
        let problem = |record: Arc<VmRecord>| {
            let text = notice(&record)?;
            Some((record.tag(), record.state, text))
        };
        self.all().into_iter().filter_map(|vm| problem(vm.record)).collect()
    }
}

impl Worker {
    /// Starts the VM automatically.
    ///
    /// # Errors
    /// Those of a start, and of the store before it.
    pub async fn autostart(&mut self) -> Result<Presence, ApiError> {
        // A start that ends the daemon counts as a failure, too; a completed one resets the number.
        self.decide(Durability::Process, |record| {
            record.autostart_failures = record.autostart_failures.saturating_add(1);
            Ok(())
        })
        .await?;
        self.start().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{plan, spec};

    fn record() -> VmRecord {
        let mut record = VmRecord::new(plan("0123456789ab", "web"), spec(), Vec::new());
        record.spec.autostart = true;
        record.existence = Existence::Created;
        record.want(Wanted::Running);
        record
    }

    fn with(change: impl FnOnce(&mut VmRecord)) -> VmRecord {
        let mut record = record();
        change(&mut record);
        record
    }

    #[test]
    fn a_stopped_vm_that_is_wanted_is_started() {
        assert!(is_due(&record()));
        for not in [
            with(|record| record.spec.autostart = false),
            with(|record| record.want(Wanted::Stopped)),
            with(|record| record.existence = Existence::Deleting),
            with(|record| record.plan.lifetime = Lifetime::UntilStopped),
            with(|record| record.state = VmState::Running),
            with(|record| record.state = VmState::Broken),
            with(|record| record.autostart_failures = MAX_FAILURES),
        ] {
            assert!(!is_due(&not), "{not:?}");
        }
    }

    #[test]
    fn failures_are_reported_with_their_cause() {
        assert_eq!(notice(&record()), None);
        let operation = banger_api::OpId::from_entropy(1);
        let failed = |failures| {
            with(|record| {
                record.autostart_failures = failures;
                let error = "no space".into();
                let operation = operation.clone();
                record.because = Some(StoppedBecause::StartFailed { operation, error });
            })
        };
        let once = format!(
            "the automatic start of `web` failed: no space ({operation}); the next daemon tries \
             again"
        );
        assert_eq!(notice(&failed(1)), Some(once));
        let often = notice(&failed(MAX_FAILURES)).unwrap();
        assert!(often.starts_with("the last 3 automatic starts of `web` failed: "), "{often}");
        assert!(often.ends_with("not tried again until a user starts the VM"), "{often}");
        assert!(notice(&with(|record| record.state = VmState::Broken)).is_some());
        assert_eq!(notice(&with(|record| record.want(Wanted::Stopped))), None);
    }

    #[test]
    fn records_of_earlier_versions_want_what_runs() {
        for (state, wanted) in
            [(VmState::Running, Wanted::Running), (VmState::Stopped, Wanted::Stopped)]
        {
            let mut old = with(|record| record.state = state);
            old.want(Wanted::Stopped);
            complete(&mut old);
            assert_eq!(old.wanted, wanted);
        }
    }
}
