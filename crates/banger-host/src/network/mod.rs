//! Network drivers: `bridge`, made by root, and `user`, which needs no privilege.
//!
//! `user`: QEMU's own user-mode network. The guest has an address that only QEMU knows and reaches
//! the outside through the host's sockets; nothing on the host has to be made or removed. With NAT
//! off it is cut off (`restrict=on`).

mod bridge;

pub use bridge::Bridge;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::plan::{VmPlan, VmSpec};

/// Address and prefix length of the guest, as QEMU's user network expects it.
pub const GUEST_ADDRESS: &str = "10.0.2.15/24";
/// The gateway QEMU plays.
pub const GATEWAY: &str = "10.0.2.2";
/// The resolver QEMU plays; it asks the host's.
pub const RESOLVER: &str = "10.0.2.3";

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
}
