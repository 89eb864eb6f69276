//! Network drivers: `bridge`, made by root, and `user`, which needs no privilege.
//!
//! `user`: QEMU's own user-mode network. The guest has an address that only QEMU knows and reaches
//! the outside through the host's sockets; nothing on the host has to be made or removed. With NAT
//! off it is cut off (`restrict=on`).

mod bridge;

pub use bridge::{BRIDGE, Bridge};

use std::net::Ipv4Addr;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_engine::devices::{Need, NetworkAbilities, Nic, NicKind, Outside};
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::plan::{Lease, VmPlan, VmSpec};

/// Address of the guest, as QEMU's user network expects it.
const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Its prefix length.
const PREFIX: u8 = 24;
/// The gateway QEMU plays.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The resolver QEMU plays; it asks the host's.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// What the user network needs and yields.
pub const USER: NetworkAbilities = NetworkAbilities { root: Need::None, nic: NicKind::User };

/// QEMU's user network. It forwards published ports itself, as its command line says.
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
