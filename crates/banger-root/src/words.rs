//! What is asked and answered: one JSON object each way, descriptors beside it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What a request did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It made the thing.
    Made,
    /// The thing was there.
    WasThere,
    /// It removed the thing.
    Removed,
    /// There was nothing.
    WasAbsent,
}

/// Whether a guest reaches the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// What a VM was given on the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The host on the bridge.
    pub gateway: Ipv4Addr,
    /// Resolvers that the guest can reach.
    pub dns: Vec<Ipv4Addr>,
    /// The TAP interface.
    pub tap: String,
}
