//! Logout: the processes of a VM get a scope of their user's systemd if a logout, or the end of a
//! unit, would end them.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::HostHint;
use banger_engine::capabilities::logout::{CAPABILITY, SCOPE};
use banger_engine::capabilities::ports::FORWARDER;
use banger_engine::capability::{Adopt, Doctor, Effect, Effects, Made, VmContext};
use banger_engine::drivers::{Applied, Undone};
use banger_engine::plan::ProcRef;
use banger_shim::record;

use super::{HostCapability, Parts};
use crate::layout::Layout;
use crate::scopes::{Logout, Scopes};

struct OwnScope {
    layout: Layout,
    scopes: Scopes,
}

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let scope = Arc::new(OwnScope { layout: parts.layout.clone(), scopes: parts.scopes.clone() });
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            steps: vec![(SCOPE, scope.clone())],
            adopt: Some(scope.clone()),
            doctor: Some(scope),
            ..Effects::default()
        },
        guest: None,
    }
}

impl OwnScope {
    /// Processes of a run: shim, VMM, companion, and the one that forwards its ports.
    fn processes(&self, context: VmContext<'_>) -> Vec<ProcRef> {
        let Some(run) = context.run else { return Vec::new() };
        let children = record::state(&self.layout.shim_state(&context.vm.id));
        let children = children.map(|state| [Some(state.vmm), state.companion]);
        [run.shim, run.found(&FORWARDER)]
            .into_iter()
            .chain(children.into_iter().flatten())
            .flatten()
            .collect()
    }
}

#[async_trait]
impl Effect for OwnScope {
    /// In the background: a start does not depend on it.
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        self.scopes.keep(&context.vm.id, self.processes(context));
        Ok(Applied::AlreadyThere.into())
    }

    async fn undo(&self, _context: VmContext<'_>) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }
}

#[async_trait]
impl Adopt for OwnScope {
    /// An earlier daemon may have died before it moved the processes.
    async fn holds(&self, context: VmContext<'_>) -> bool {
        self.scopes.keep(&context.vm.id, self.processes(context));
        true
    }
}

#[async_trait]
impl Doctor for OwnScope {
    async fn checks(&self) -> Vec<Check> {
        self.scopes.at_logout().await.map(judge).into_iter().collect()
    }
}

fn judge(logout: Logout) -> Check {
    let (verdict, seen) = match logout {
        Logout::Continue => (Verdict::Ok, "VMs outlive a logout"),
        Logout::EndSession => (
            Verdict::Warning,
            "logind ends a user's processes at logout (`KillUserProcesses=yes`): VMs of QEMU and \
             published ports end with them",
        ),
        Logout::EndManager => (
            Verdict::Warning,
            "the daemon runs in a unit of this user's systemd, which ends at the last logout: VMs \
             of QEMU and published ports end with it",
        ),
    };
    let hints = match verdict {
        Verdict::Ok => Vec::new(),
        Verdict::Warning | Verdict::Missing => vec![HostHint::EnableLingering.into()],
    };
    Check {
        code: "logout".into(),
        verdict,
        seen: seen.into(),
        hints,
        needed_for: vec!["logout".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_a_logout_is_a_warning_with_a_hint() {
        assert_eq!(judge(Logout::Continue).hints, []);
        for logout in [Logout::EndSession, Logout::EndManager] {
            let check = judge(logout);
            assert_eq!(check.verdict, Verdict::Warning);
            assert!(check.hint().unwrap().contains("loginctl enable-linger"));
        }
    }
}
