//! NAT: whether the guest can reach networks outside of the host. It is a value of the VM's lease,
//! which the network driver sets in the step `network`:
//! docs/decisions/0020-nat-is-part-of-the-lease.md.

use crate::capability::{Capability, Change};

/// NAT.
pub const CAPABILITY: Capability = Capability {
    name: "nat",
    plan: None,
    change: Some(|old, new, _run| match old.nat == new.nat {
        true => Change::None,
        false => Change::NextStart,
    }),
    live: None,
    steps: &[],
};
