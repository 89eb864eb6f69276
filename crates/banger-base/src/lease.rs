//! Leases of addresses on the bridge.

use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The network configuration of a guest on a network where other hosts can reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Address of the guest.
    pub address: Ipv4Addr,
    /// Prefix length of the network.
    pub prefix: u8,
    /// Address of the host on the bridge, the guest's default gateway.
    pub gateway: Ipv4Addr,
    /// Resolvers that the guest can reach.
    pub dns: Vec<Ipv4Addr>,
}
