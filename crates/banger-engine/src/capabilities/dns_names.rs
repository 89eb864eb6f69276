//! DNS names: the daemon's DNS server answers queries for `NAME.vm`, and the host's resolver is
//! configured to send them there.
//!
//! Answers derive from the VMs' states and need no step. The first start configures the resolver;
//! upkeep maintains the configuration while VMs are running.

use banger_api::operation::stage;

use crate::capability::{Capability, Slot, SlotStep};
use crate::oplog::StepId;

/// Configuration of the host's resolver.
pub const DNS_NAMES: StepId = StepId::new("dns_names");

/// DNS names.
pub const CAPABILITY: Capability = Capability {
    name: "dns_names",
    plan: None,
    change: None,
    live: None,
    steps: &[SlotStep { id: DNS_NAMES, slot: Slot::AfterNetwork, stage: stage::ATTACH_NETWORK }],
};
