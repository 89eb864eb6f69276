//! The text of banger's nftables rules, derived from the leases only: nft(8). A load replaces both
//! tables, or adds elements to their sets, in one transaction.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::leases::Leases;
use crate::protocol::Nat;

/// Removes both tables, whether they exist or not.
pub const NONE: &str = "table bridge banger
delete table bridge banger
table inet banger
delete table inet banger
";

/// The `elements` of a set; nft does not accept an empty list.
fn elements(lines: &BTreeSet<String>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    format!("\n\t\telements = {{\n\t\t\t{}\n\t\t}}", lines.join(",\n\t\t\t"))
}

/// The elements of the sets.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// Allowed senders: TAP, MAC and IPv4 address.
    guests: BTreeSet<String>,
    /// The addresses of guests with NAT.
    nat: BTreeSet<String>,
}

impl Sets {
    /// The elements for these leases.
    pub fn of(leases: &Leases) -> Self {
        let guest = |(address, held): (_, &super::leases::LeaseFile)| {
            format!("\"{}\" . {} . {address}", held.vm.tap_name(), held.vm.mac())
        };
        let nat = leases.iter().filter(|(_, held)| held.nat == Nat::On);
        Self {
            guests: leases.iter().map(guest).collect(),
            nat: nat.map(|(address, _)| address.to_string()).collect(),
        }
    }

    /// The text that turns `before` into these sets, if elements are only added. That is much
    /// faster than a full load, in which the kernel waits for all readers of the removed rules.
    pub fn additions(&self, before: &Self) -> Option<String> {
        if !self.guests.is_superset(&before.guests) || !self.nat.is_superset(&before.nat) {
            return None;
        }
        let added = |set: &str, now: &BTreeSet<String>, before: &BTreeSet<String>| {
            let new: Vec<&str> = now.difference(before).map(String::as_str).collect();
            if new.is_empty() {
                return String::new();
            }
            format!("add element {set} {{ {} }}\n", new.join(", "))
        };
        Some(
            added("bridge banger guests", &self.guests, &before.guests)
                + &added("inet banger nat", &self.nat, &before.nat),
        )
    }
}

/// The text of both tables. `bridge` must be a plain interface name.
///
/// - `bridge banger` checks frames that enter from a TAP. Only IPv4 and ARP with the guest's own
///   MAC and address pass, so IPv6 and VLAN tags are dropped.
/// - `inet banger`, chain `early`: packets whose input interface is a TAP have bypassed the bridge
///   (frames to reserved link-local addresses do, IEEE 802.1Q table 8-1). New connections of a
///   guest to an address of the host are dropped here, because other tables may rewrite the address
///   later.
/// - `forward`: no guest reaches another through the host. Link-local networks are not forwarded
///   (RFC 3927), because 169.254.169.254 serves the credentials of a cloud host; only DNS is,
///   because some clouds have their resolver there.
pub fn tables(bridge: &str, sets: &Sets) -> String {
    let (guests, nat) = (elements(&sets.guests), elements(&sets.nat));
    let mut text = NONE.to_owned();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        r#"table bridge banger {{
	set guests {{
		type ifname . ether_addr . ipv4_addr{guests}
	}}
	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
		iifname != "fc-*" accept comment "banger: not from a guest"
		ether type ip iifname . ether saddr . ip saddr @guests \
			accept comment "banger: its own address"
		ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
			iifname . ether saddr . arp saddr ip @guests \
			iifname . arp saddr ether . arp saddr ip @guests \
			accept comment "banger: its own address"
		drop comment "banger: forged, or neither IPv4 nor ARP"
	}}
}}
table inet banger {{
	set nat {{
		type ipv4_addr{nat}
	}}
	chain early {{
		type filter hook prerouting priority mangle; policy accept;
		iifname "fc-*" drop comment "banger: went round the bridge"
		iifname "{bridge}" fib daddr type local ct state != {{ established, related }} \
			drop comment "banger: guests do not reach the host"
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{bridge}" ct state {{ established, related }} \
			accept comment "banger: answers to the host"
		iifname "{bridge}" drop comment "banger: guests do not reach the host"
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" oifname "{bridge}" \
			drop comment "banger: guests do not reach each other"
		iifname "{bridge}" ip saddr @nat ip daddr 169.254.0.0/16 \
			meta l4proto {{ tcp, udp }} th dport 53 accept comment "banger: a resolver"
		iifname "{bridge}" ip saddr @nat ip daddr != 169.254.0.0/16 \
			accept comment "banger: to the outside"
		iifname "{bridge}" drop comment "banger: not to the outside"
		oifname "{bridge}" ct state {{ established, related }} \
			accept comment "banger: answers to guests"
		oifname "{bridge}" drop comment "banger: nobody outside reaches a guest"
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @nat oifname != "{bridge}" masquerade comment "banger: to the outside"
	}}
}}
"#
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::leases::LeaseFile;
    use super::super::subnet;
    use super::*;
    use crate::places::Places;

    fn sets(vms: &[(&str, Nat)]) -> Sets {
        let folder = tempfile::tempdir().unwrap();
        let subnet = subnet::checked(&Places::default()).unwrap();
        let mut leases = Leases::tidied(folder.path().to_owned(), subnet).unwrap();
        for (vm, nat) in vms {
            let held = LeaseFile { owner: 7, vm: vm.parse().unwrap(), nat: *nat };
            leases.take(held, subnet).unwrap();
        }
        Sets::of(&leases)
    }

    #[test]
    fn rules_of_two_guests_one_with_nat() {
        let sets = sets(&[("0123456789ab", Nat::On), ("ba9876543210", Nat::Off)]);
        assert_eq!(tables("br-fc", &sets), include_str!("golden/two.nft"));
    }

    #[test]
    fn an_empty_set_has_no_elements_clause() {
        assert!(!tables("br-fc", &sets(&[])).contains("elements"));
        let text = tables("br-fc", &sets(&[("0123456789ab", Nat::Off)]));
        assert_eq!(text.matches("elements").count(), 1);
    }

    #[test]
    fn new_elements_are_added_without_a_full_load() {
        let (one, two) = (("0123456789ab", Nat::On), ("ba9876543210", Nat::Off));
        let added = sets(&[one, two]).additions(&sets(&[one])).unwrap();
        let guest = "{ \"fc-ba9876543210\" . 02:98:76:54:32:10 . 172.16.0.46 }";
        assert_eq!(added, format!("add element bridge banger guests {guest}\n"));
        let on = sets(&[one]).additions(&sets(&[("0123456789ab", Nat::Off)])).unwrap();
        assert_eq!(on, "add element inet banger nat { 172.16.0.254 }\n");
        assert_eq!(sets(&[one]).additions(&sets(&[one])).unwrap(), "");
        assert_eq!(sets(&[one]).additions(&sets(&[two])), None);
        assert_eq!(sets(&[("0123456789ab", Nat::Off)]).additions(&sets(&[one])), None);
    }
}
