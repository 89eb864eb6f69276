//! The network of the bridge: which addresses there are and who gets which.

use std::net::Ipv4Addr;

use banger_base::VmId;

use crate::error::{Kind, RootError};
use crate::places::Places;

/// Shortest and longest prefix: 65 533 guests at most, two at least.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;

/// How to have another one, where the daemon is root and where it is not.
pub const HINT: &str = "set `[network] subnet` to one that is free, or, where bangerd is not root, \
                        `sudo banger-root install --subnet NETWORK`";

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// That of the configuration.
    ///
    /// # Errors
    /// `BadRequest`: it is no network of a sensible size, or not one that guests may have.
    pub fn of(places: &Places) -> Result<Self, RootError> {
        let (address, prefix) = (places.subnet, places.prefix);
        let bad = |why: &str| {
            let message = format!("`{address}/{prefix}` cannot be the network of VMs: {why}");
            RootError::new(Kind::BadRequest, message).with_hint(HINT)
        };
        if !PREFIXES.contains(&prefix) {
            return Err(bad("its prefix is not within 16 to 29"));
        }
        let subnet = Self { first: address.into(), prefix };
        if subnet.first & !subnet.mask() != 0 {
            return Err(bad("it does not begin there"));
        }
        if address.is_loopback() || address.is_multicast() || address.octets()[0] == 0 {
            return Err(bad("such addresses mean something else"));
        }
        Ok(subnet)
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    /// Length of its prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The host: the first address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// How many guests fit: not the network, the host, the broadcast address.
    fn guests(self) -> u32 {
        !self.mask() - 2
    }

    /// Whether a guest may have this address.
    pub fn has_guest(self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        number & self.mask() == self.first && (2..!self.mask()).contains(&(number - self.first))
    }

    /// The addresses that a VM may get, in the order in which it tries them: its own first, so that
    /// it mostly gets the same again.
    pub fn choices(self, vm: &VmId) -> impl Iterator<Item = Ipv4Addr> {
        // FNV-1a: ids of one moment differ in few bits.
        let hash = vm.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let (first, guests) = (self.first, self.guests());
        let start = ((hash ^ (hash >> 32)) % u64::from(guests)) as u32;
        (0..guests).map(move |n| Ipv4Addr::from(first + 2 + (start + n) % guests))
    }

    /// Whether a network has addresses in common with it.
    pub fn overlaps(self, to: Ipv4Addr, prefix: u8) -> bool {
        let shorter = prefix.min(self.prefix);
        let mask = u32::MAX.checked_shl(u32::from(32 - shorter)).unwrap_or(0);
        u32::from(to) & mask == self.first & mask
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str, prefix: u8) -> Result<Subnet, RootError> {
        Subnet::of(&Places { subnet: text.parse().unwrap(), prefix, ..Places::default() })
    }

    #[test]
    fn networks_and_what_is_none() {
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
    fn every_address_of_a_guest_is_a_choice_once() {
        let subnet = subnet("10.9.8.248", 29).unwrap();
        for vm in ["000000000000", "0123456789ab", "ffffffffffff"] {
            let mut all: Vec<_> = subnet.choices(&vm.parse().unwrap()).collect();
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
    fn overlaps() {
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
            assert_eq!(subnet.overlaps(to.parse().unwrap(), prefix), expected, "{to}/{prefix}");
        }
    }
}
