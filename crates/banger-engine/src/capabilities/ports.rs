//! Published ports: TCP ports of the host that lead to ports of the guest while it runs.
//!
//! Where the guest has an address, a process outside the daemon forwards. As with the shim, it
//! waits at a gate until it is on record: that is the first step, and the second opens the gate.
//! Both come before the VMM, since a port that is taken should not cost a boot.

use banger_api::operation::stage;

use crate::capability::{Capability, Change, Slot, SlotStep, Use};
use crate::oplog::StepId;

/// The process that forwards, waiting at its gate. It finds out a [`crate::plan::ProcRef`].
pub const FORWARDER: StepId = StepId::new("forwarder");
/// The ports, listened on, all or none of them.
pub const FORWARDS: StepId = StepId::new("forwards");

/// Published ports.
pub const CAPABILITY: Capability = Capability {
    name: "ports",
    plan: Some(|_vm, spec| if spec.publish.is_empty() { Use::Unused } else { Use::Used }),
    change: Some(|old, new| match old.publish == new.publish {
        true => Change::None,
        false => Change::NextStart,
    }),
    steps: &[
        SlotStep { id: FORWARDER, slot: Slot::AfterNetwork, stage: stage::ATTACH_NETWORK },
        SlotStep { id: FORWARDS, slot: Slot::AfterNetwork, stage: stage::ATTACH_NETWORK },
    ],
};
