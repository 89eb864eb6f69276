//! SSH identity: each VM has its own host key, created with it and sent to the guest at boot.

use banger_api::operation::stage;

use crate::capability::{Capability, Slot, SlotStep};
use crate::oplog::StepId;

/// The key.
pub const IDENTITY: StepId = StepId::new("identity");

/// SSH identity.
pub const CAPABILITY: Capability = Capability {
    name: "ssh_identity",
    plan: None,
    change: None,
    live: None,
    steps: &[SlotStep { id: IDENTITY, slot: Slot::Lasting, stage: stage::PREPARE_DISKS }],
};
