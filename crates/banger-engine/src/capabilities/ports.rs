//! Published ports: TCP ports of the host, forwarded to ports of the guest while it is running.
//!
//! If the guest has an address of its own, a process outside of the daemon (`banger-forward`)
//! forwards them. Like the shim, it waits at a gate until it is on record: the first step starts
//! it, the second opens the gate. Both precede the VMM, so that a port in use fails before the
//! boot.

use banger_api::operation::stage;

use crate::capability::{Capability, Change, Slot, SlotStep, Use};
use crate::oplog::StepId;

/// The forwarding process, waiting at its gate. Its result is a [`crate::plan::ProcRef`].
pub const FORWARDER: StepId = StepId::new("forwarder");
/// The listening sockets, all or none.
pub const FORWARDS: StepId = StepId::new("forwards");

/// Published ports.
pub const CAPABILITY: Capability = Capability {
    name: "ports",
    plan: Some(|_vm, spec| if spec.publish.is_empty() { Use::Unused } else { Use::Used }),
    change: Some(|old, new, run| match run {
        _ if old.publish == new.publish => Change::None,
        Some(run) if run.lease.is_some() => Change::Live,
        // A guest without an address is reached through its NIC, which is fixed while it runs.
        Some(_) | None => Change::NextStart,
    }),
    live: Some(|run, new| run.publish.clone_from(&new.publish)),
    steps: &[
        SlotStep { id: FORWARDER, slot: Slot::AfterNetwork, stage: stage::ATTACH_NETWORK },
        SlotStep { id: FORWARDS, slot: Slot::AfterNetwork, stage: stage::ATTACH_NETWORK },
    ],
};
