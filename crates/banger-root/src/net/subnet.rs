//! The subnet of the bridge and its addresses.

use std::net::Ipv4Addr;

use banger_base::{HostHint, VmId};
use ipnet::Ipv4Net;

use crate::error::{Kind, RootError};
use crate::places::Places;

/// Shortest and longest prefix: for at most 65 533 guests, at least two.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;

/// The subnet of the bridge, checked.
///
/// # Errors
/// `BadRequest`: the prefix length or the addresses are not usable.
pub fn checked(places: &Places) -> Result<Ipv4Net, RootError> {
    let network = places.network;
    let bad = |why: &str| {
        let message = format!("`{network}` cannot be the subnet of VMs: {why}");
        RootError::new(Kind::BadRequest, message).with_hint(HostHint::ChooseSubnet)
    };
    if !PREFIXES.contains(&network.prefix_len()) {
        return Err(bad("its prefix length is not between 16 and 29"));
    }
    let first = network.network();
    if network.addr() != first {
        return Err(bad("it has host bits set"));
    }
    if first.is_loopback() || first.is_multicast() || first.octets()[0] == 0 {
        return Err(bad("these addresses are reserved"));
    }
    Ok(network)
}

/// Roles of addresses in the subnet of the bridge.
pub trait GuestNetwork {
    /// The host's address: the first one.
    fn gateway(&self) -> Ipv4Addr;
    /// Whether a guest may have this address: neither the network, gateway nor broadcast address.
    fn has_guest(&self, address: Ipv4Addr) -> bool;
    /// The addresses for a VM in order of preference. The order derives from the id, so that a VM
    /// usually gets the same address again.
    fn candidates(&self, vm: &VmId) -> impl Iterator<Item = Ipv4Addr> + use<Self>;
    /// Whether two networks have addresses in common.
    fn overlaps(&self, other: &Ipv4Net) -> bool;
}

impl GuestNetwork for Ipv4Net {
    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) + 1)
    }

    fn has_guest(&self, address: Ipv4Addr) -> bool {
        self.contains(&address)
            && ![self.network(), self.gateway(), self.broadcast()].contains(&address)
    }

    fn candidates(&self, vm: &VmId) -> impl Iterator<Item = Ipv4Addr> + use<> {
        // FNV-1a: ids created at the same time differ in few bits.
        let hash = vm.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let first = u32::from(self.gateway()) + 1;
        let guests = u32::from(self.broadcast()) - first;
        let start = ((hash ^ (hash >> 32)) % u64::from(guests)) as u32;
        (0..guests).map(move |n| Ipv4Addr::from(first + (start + n) % guests))
    }

    fn overlaps(&self, other: &Ipv4Net) -> bool {
        // Two prefixes with a common address: one contains the other.
        self.contains(&other.network()) || other.contains(&self.network())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str, prefix: u8) -> Result<Ipv4Net, RootError> {
        let network = Ipv4Net::new(text.parse().unwrap(), prefix).unwrap();
        checked(&Places { network, ..Places::default() })
    }

    #[test]
    fn subnets_are_checked() {
        assert_eq!(subnet("172.16.0.0", 24).unwrap().to_string(), "172.16.0.0/24");
        for (bad, prefix) in [
            ("172.16.0.1", 24),
            ("172.16.0.0", 30),
            ("172.16.0.0", 12),
            ("127.0.0.0", 24),
            ("0.0.0.0", 16),
            ("224.1.0.0", 16),
        ] {
            assert!(subnet(bad, prefix).is_err(), "{bad}/{prefix}");
        }
    }

    #[test]
    fn every_guest_address_is_a_candidate_once() {
        let subnet = subnet("10.9.8.248", 29).unwrap();
        for vm in ["000000000000", "0123456789ab", "ffffffffffff"] {
            let mut all: Vec<_> = subnet.candidates(&vm.parse().unwrap()).collect();
            all.sort();
            let last: Vec<u8> = all.iter().map(|address| address.octets()[3]).collect();
            assert_eq!(last, [250, 251, 252, 253, 254]);
            assert!(all.iter().all(|address| subnet.has_guest(*address)));
        }
        for other in ["10.9.8.248", "10.9.8.249", "10.9.8.255", "10.9.7.250"] {
            assert!(!subnet.has_guest(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn overlapping_subnets() {
        let subnet = subnet("172.16.4.0", 24).unwrap();
        for (to, prefix, expected) in [
            ("172.16.0.0", 16, true),
            ("172.16.4.128", 25, true),
            ("172.16.4.7", 32, true),
            ("172.16.5.0", 24, false),
            ("0.0.0.0", 0, true),
            ("128.0.0.0", 1, true),
            ("172.16.3.255", 32, false),
        ] {
            let other = Ipv4Net::new(to.parse().unwrap(), prefix).unwrap();
            assert_eq!(subnet.overlaps(&other), expected, "{other}");
        }
    }
}
