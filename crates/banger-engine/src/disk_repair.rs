//! Guests that their VMM has paused because of a failed disk request.

use std::time::Duration;

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, Hint};

use crate::drivers::Applied;
use crate::engine::Engine;
use crate::plan::VmPlan;
use crate::view;

/// Interval of looking whether a guest is paused.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that find a guest paused before work in it is given up: room may be made, and a
/// repair takes some seconds.
const LOOKS: u32 = 15;

impl Engine {
    /// Resolves when the guest has been paused for long because of a failed disk request: work in
    /// it would not end by itself.
    pub(crate) async fn paused_for_long(&self, vm: &VmPlan) -> ApiError {
        let mut found = 0;
        while found < LOOKS {
            tokio::time::sleep(LOOK).await;
            found = if self.is_held(vm) { found + 1 } else { 0 };
        }
        let mut why = self.held().await.into_iter();
        let why = why.find_map(|(of, why)| (of.id == vm.id).then_some(why));
        let text = why.unwrap_or_else(|| format!("`{}` waits for its disk", vm.name));
        ApiError::new(ErrorCode::NoSpace, text).with_hint(Hint::FreeSpace { path: None })
    }

    fn is_held(&self, vm: &VmPlan) -> bool {
        let vmm = self.drivers().vmm(vm);
        vmm.is_ok_and(|vmm| vmm.notices().is_some_and(|notices| notices.is_held(vm)))
    }

    /// VMs whose guest is paused because of a failed disk request, each with the reason.
    pub async fn held(&self) -> Vec<(VmTag, String)> {
        let mut held = Vec::new();
        for vm in self.all() {
            let plan = &vm.record.plan;
            let Some(run) = vm.record.run.as_ref().filter(|_| self.is_held(plan)) else { continue };
            // The reason comes first.
            if let Some(why) = view::notices(self.drivers(), plan, run).await.into_iter().next() {
                held.push((vm.record.tag(), why));
            }
        }
        held
    }

    /// Repairs the disks of these VMs if possible; the VMM then repeats the request. Called every
    /// few seconds.
    pub async fn repair_disks(&self) {
        for id in self.ids() {
            let Ok(vm) = self.running_plan(id.as_str()) else { continue };
            let Ok(storage) = self.drivers().storage(&vm) else { continue };
            let Some(repair) = storage.repair().filter(|_| self.is_held(&vm)) else { continue };
            match repair.repair(&vm).await {
                Ok(Applied::Created) => tracing::info!(vm = %vm.id, "repaired its disks"),
                Ok(Applied::AlreadyThere) => {}
                Err(error) => {
                    let causes = &error.causes;
                    tracing::warn!(vm = %vm.id, error = %error, ?causes, "its disks");
                }
            }
        }
    }
}
