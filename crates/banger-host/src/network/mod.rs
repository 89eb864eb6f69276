//! Network drivers: `bridge`, created by the helper, and `user`, which needs no privilege.
//!
//! `user`: QEMU's own user-mode network. The guest has an address that only QEMU knows, and reaches
//! other networks through the host's sockets; no object is created on the host. Without NAT the
//! guest is isolated (`restrict=on`).

mod bridge;

pub use bridge::{BRIDGE, Bridge};

use std::net::Ipv4Addr;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_engine::devices::{Need, NetworkAbilities, Nic, NicKind, Outside};
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::plan::{Lease, VmPlan, VmSpec};

/// Address of the guest in QEMU's user network.
const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Its prefix length.
const PREFIX: u8 = 24;
/// QEMU's gateway.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// QEMU's resolver, which forwards to the host's.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Requirements and NIC of the user network.
pub const USER: NetworkAbilities = NetworkAbilities { root: Need::None, nic: NicKind::User };

/// QEMU's user network. QEMU forwards published ports itself.
pub struct UserNetwork;

#[async_trait]
impl Network for UserNetwork {
    async fn attach(&self, _vm: &VmPlan, _spec: &VmSpec) -> Result<Attached, ApiError> {
        Ok(Attached { applied: Applied::AlreadyThere, lease: None })
    }

    async fn detach(&self, _vm: &VmPlan) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }

    fn abilities(&self) -> NetworkAbilities {
        USER
    }

    fn nic(&self, vm: &VmPlan, spec: &VmSpec, _lease: Option<&Lease>) -> Nic {
        Nic::User {
            mac: vm.id.mac(),
            guest: Lease {
                address: GUEST_ADDRESS,
                prefix: PREFIX,
                gateway: GATEWAY,
                dns: vec![RESOLVER],
            },
            outside: if spec.nat { Outside::Reached } else { Outside::CutOff },
            forwards: spec.publish.clone(),
        }
    }
}
