//! NAT: whether the guest can reach networks outside of the host. The network driver implements it
//! when it attaches the VM, so there is no step.

use crate::capability::{Capability, Change};

/// NAT.
pub const CAPABILITY: Capability = Capability {
    name: "nat",
    plan: None,
    change: Some(|old, new| if old.nat == new.nat { Change::None } else { Change::NextStart }),
    steps: &[],
};
