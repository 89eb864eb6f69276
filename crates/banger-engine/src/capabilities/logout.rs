//! Logout: where systemd would end the processes of a VM with a session or unit of their user, they
//! are moved to scopes of their own.
//!
//! A scope ends with its processes and needs no undo.

use banger_api::operation::stage;

use crate::capability::{Capability, Slot, SlotStep};
use crate::oplog::StepId;

/// The scope of the VM's processes.
pub const SCOPE: StepId = StepId::new("scope");

/// Logout.
pub const CAPABILITY: Capability = Capability {
    name: "logout",
    plan: None,
    change: None,
    live: None,
    steps: &[SlotStep { id: SCOPE, slot: Slot::AfterReady, stage: stage::WAIT_GUEST_READY }],
};
