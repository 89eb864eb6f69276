//! opencode: the server of an image that has opencode, started after the guest is ready, with a
//! password that is made with the VM.
//!
//! The VM of an image build does not serve, since the image is to have no trace of it, and neither
//! does a machine whose one program is the image's entry point.

use banger_api::operation::stage;

use crate::capability::{Capability, Slot, SlotStep, Use};
use crate::oplog::StepId;
use crate::plan::VmPlan;

/// The password, on the host.
pub const PASSWORD: StepId = StepId::new("opencode_password");
/// The server in the guest. It ends with the guest, so it has no undo.
pub const SERVER: StepId = StepId::new("opencode");

/// opencode.
pub const CAPABILITY: Capability = Capability {
    name: "opencode",
    plan: Some(|vm, _spec| if is_served(vm) { Use::Used } else { Use::Unused }),
    change: None,
    live: None,
    steps: &[
        SlotStep { id: PASSWORD, slot: Slot::Lasting, stage: stage::PREPARE_DISKS },
        SlotStep { id: SERVER, slot: Slot::AfterReady, stage: stage::WAIT_OPENCODE },
    ],
};

/// Whether a VM serves opencode.
pub fn is_served(vm: &VmPlan) -> bool {
    vm.boot.opencode && vm.build.is_none() && vm.program.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::BuildPlan;
    use crate::plan::tests::plan;
    use crate::program::Program;

    #[test]
    fn only_a_machine_with_an_init_of_an_image_with_opencode_serves_it() {
        let mut vm = plan("0123456789ab", "web");
        assert!(!is_served(&vm));
        vm.boot.opencode = true;
        assert!(is_served(&vm));
        let operation = banger_api::OpId::from_entropy(1);
        vm.build = Some(BuildPlan { operation, keep: false });
        assert!(!is_served(&vm));
        vm.build = None;
        let argv = vec!["app".into()];
        let (env, cwd, user) = (Vec::new(), None, None);
        vm.program = Some(Program { argv, env, cwd, user, stop_signal: 15, attach: false });
        assert!(!is_served(&vm));
    }
}
