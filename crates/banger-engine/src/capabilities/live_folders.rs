//! Live folders: folders of the host that are kept like folders of the guest while it runs.
//!
//! The daemon compares the specifications of running VMs with its sessions and begins and ends
//! sessions (`bangerd/src/live_folders`); a session ends with the connection to its guest. So there
//! is no step, and a change is complete once it is on record.

use banger_api::VmId;
use banger_api::sync::SyncFolder;
use banger_api::vm::VmState;

use crate::capability::{Capability, Change};
use crate::engine::Engine;
use crate::plan::VmPlan;

/// Live folders.
pub const CAPABILITY: Capability = Capability {
    name: "live_folders",
    plan: None,
    change: Some(|old, new, run| match run {
        _ if old.sync == new.sync => Change::None,
        Some(_) => Change::Live,
        None => Change::NextStart,
    }),
    live: Some(|run, new| run.sync.clone_from(&new.sync)),
    steps: &[],
};

/// The live folders of a VM.
#[derive(Debug, Clone)]
pub struct VmFolders {
    /// The VM.
    pub vm: VmPlan,
    /// Boot id of the guest, while the VM is running.
    pub boot_id: Option<String>,
    /// The folders in force.
    pub folders: Vec<SyncFolder>,
}

impl Engine {
    /// All VMs that have live folders.
    pub fn live_folders(&self) -> Vec<VmFolders> {
        let folders = self.all().into_iter().map(|published| {
            let record = &published.record;
            let run = record.run.as_ref().filter(|_| record.state == VmState::Running);
            VmFolders {
                vm: record.plan.clone(),
                boot_id: run.map(|run| run.boot_id.clone().unwrap_or_default()),
                folders: record.spec_in_force().sync.clone(),
            }
        });
        folders.filter(|vm| !vm.folders.is_empty()).collect()
    }

    /// Whether a VM has the live folder.
    pub fn has_live_folder(&self, vm: &VmId, folder: &SyncFolder) -> bool {
        self.registry().vms.get(vm).is_some_and(|handle| {
            handle.published.borrow().record.spec_in_force().sync.contains(folder)
        })
    }
}
