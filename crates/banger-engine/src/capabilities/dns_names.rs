//! DNS names: `NAME.vm` is answered by the daemon's resolver, which the host is told to ask.
//!
//! The records follow the VMs' states and need no step. The host is told with the first start, and
//! looked after while VMs run.

use banger_api::operation::stage;

use crate::capability::{Capability, Slot, SlotStep};
use crate::oplog::StepId;

/// The host asks the daemon for names of VMs.
pub const DNS_NAMES: StepId = StepId::new("dns_names");

/// DNS names.
pub const CAPABILITY: Capability = Capability {
    name: "dns_names",
    plan: None,
    change: None,
    steps: &[SlotStep { id: DNS_NAMES, slot: Slot::AfterNetwork, stage: stage::ATTACH_NETWORK }],
};
