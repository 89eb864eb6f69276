//! The bridge: created with the first VM, removed with the last.

use banger_base::{HostHint, MacAddress, POOL_TAP_PREFIX, TAP_PREFIX};
use ipnet::Ipv4Net;

use super::link::{Link, Links, Means, Route};
use super::subnet::GuestNetwork;
use super::sysctl;
use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::Did;

/// Prefixes up to this length are default routes: VPNs use two halves of the address space.
const EVERYTHING: u8 = 1;
/// Maximum length of an interface name (IFNAMSIZ, netdevice(7)).
const MAX_NAME: usize = 15;

/// MAC address of the bridge: fixed, so that it does not change with the ports, and identifies the
/// bridge as banger's. Locally administered, unicast.
fn mac(name: &str) -> MacAddress {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    MacAddress([2, 0xfc, a, b, c, d])
}

/// The name of the bridge, checked because it becomes part of rules.
///
/// # Errors
/// `BadRequest`: not a plain name, or a name reserved for TAPs.
pub fn name(places: &Places) -> Result<&str, RootError> {
    let name = places.bridge.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let dots = name.bytes().all(|byte| byte == b'.');
    let taken = name.starts_with(TAP_PREFIX) || name.starts_with(POOL_TAP_PREFIX) || name == "lo";
    if name.len() <= MAX_NAME && name.bytes().all(plain) && !dots && !taken {
        return Ok(name);
    }
    let message = format!("`{}` cannot be the name of the bridge", name.escape_debug());
    Err(RootError::new(Kind::BadRequest, message).with_hint(HostHint::ChooseBridge))
}

fn failed<'a>(doing: &'a str, name: &'a str) -> impl Fn(std::io::Error) -> RootError + 'a {
    move |error| RootError::system(format_args!("{doing} the bridge `{name}`"), &error)
}

/// The bridge, if it exists and is banger's.
///
/// # Errors
/// Netlink errors.
pub fn ours(places: &Places, links: &Links) -> Result<Option<Link>, RootError> {
    let name = name(places)?;
    let link = links.get(name).map_err(failed("find", name))?;
    Ok(link.filter(|link| link.kind == "bridge" && link.mac == Some(mac(name))))
}

/// As [`ours`], but another interface with that name is an error.
///
/// # Errors
/// `HostNotReady`: the interface with that name is not banger's. Netlink errors.
pub fn find(places: &Places, links: &Links) -> Result<Option<Link>, RootError> {
    let name = name(places)?;
    let found = ours(places, links)?;
    if found.is_some() || links.get(name).map_err(failed("find", name))?.is_none() {
        return Ok(found);
    }
    let message = format!("there is an interface `{name}` that does not belong to banger");
    Err(RootError::new(Kind::HostNotReady, message)
        .with_hint(HostHint::DeleteInterfaces { names: vec![name.to_owned()] })
        .with_hint(HostHint::ChooseBridge))
}

/// The first route that overlaps with the subnet. `own` is the index of the bridge.
pub fn overlap(subnet: Ipv4Net, own: Option<u32>, routes: &[Route]) -> Option<&Route> {
    routes.iter().find(|route| {
        route.to.prefix_len() > EVERYTHING
            && Some(route.link) != own
            && matches!(route.means, Means::Unicast | Means::Local)
            && subnet.overlaps(&route.to)
    })
}

/// Refuses a subnet that overlaps with an existing route.
///
/// # Errors
/// `HostNotReady`, naming the route; netlink errors.
pub fn refuse_overlap(subnet: Ipv4Net, own: Option<u32>, links: &Links) -> Result<(), RootError> {
    let failed = |error| RootError::system("list routes", &error);
    let routes = links.routes().map_err(failed)?;
    let Some(route) = overlap(subnet, own, &routes) else { return Ok(()) };
    let all = links.all().map_err(failed)?;
    let name = all.iter().find(|link| link.index == route.link).map_or("none", |l| &l.name);
    let message = format!(
        "the subnet of VMs `{subnet}` overlaps with `{}` of the interface `{name}`",
        route.to
    );
    Err(RootError::new(Kind::HostNotReady, message).with_hint(HostHint::ChooseSubnet))
}

/// Creates the bridge, or repairs it.
///
/// # Errors
/// Those of [`find`] and [`refuse_overlap`].
pub fn ensure(places: &Places, subnet: Ipv4Net, links: &Links) -> Result<(Link, Did), RootError> {
    let name = name(places)?;
    let there = find(places, links)?;
    // Setting it up is the last step.
    if let Some(link) = there.as_ref().filter(|link| link.up) {
        return Ok((link.clone(), Did::WasThere));
    }
    if there.is_none() {
        refuse_overlap(subnet, None, links)?;
        links.make_bridge(name, mac(name)).map_err(failed("make", name))?;
    }
    let vanished = || RootError::new(Kind::Internal, format!("the bridge `{name}` vanished"));
    let link = find(places, links)?.ok_or_else(vanished)?;
    finish(&link, subnet, links)?;
    Ok((link, Did::Made))
}

/// Sets the address of a new bridge and takes it up.
///
/// # Errors
/// Those of [`refuse_overlap`].
pub fn finish(link: &Link, subnet: Ipv4Net, links: &Links) -> Result<(), RootError> {
    let name = link.name.as_str();
    refuse_overlap(subnet, Some(link.index), links)?;
    sysctl::no_ipv6(name)?;
    links
        .address(link.index, subnet.gateway(), subnet.prefix_len())
        .map_err(failed("give an address to", name))?;
    links.up(link.index).map_err(failed("take up", name))
}

/// Whether the host has the gateway address on the bridge.
pub fn has_address(link: &Link, subnet: Ipv4Net, routes: &[Route]) -> bool {
    routes.iter().any(|route| route.link == link.index && route.is_own_address(subnet.gateway()))
}

/// Removes the bridge; leaves an interface that is not banger's.
///
/// # Errors
/// Netlink errors.
pub fn remove(places: &Places, links: &Links) -> Result<Did, RootError> {
    match ours(places, links)? {
        Some(link) => links.delete(link.index).map_err(failed("remove", &link.name)),
        None => Ok(Did::WasAbsent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_names_are_checked() {
        let named = |bridge: &str| Places { bridge: bridge.into(), ..Places::default() };
        assert!(name(&named("br-fc")).is_ok());
        for bad in ["", "..", "a b", "a\"", "fc-1", "fcp-1", "a/b", "lo", "sixteen-letters-"] {
            assert!(name(&named(bad)).is_err(), "{bad}");
        }
        assert_ne!(mac("br-fc"), mac("br-fd"));
        assert_eq!(mac("br-fc").0[0] & 3, 2, "locally administered, unicast");
    }

    #[test]
    fn overlapping_routes_are_found() {
        let subnet = super::super::subnet::checked(&Places::default()).unwrap();
        let route = |to: &str, prefix, means, link| Route {
            to: Ipv4Net::new(to.parse().unwrap(), prefix).unwrap(),
            means,
            link,
            routed: false,
        };
        let free = [
            route("0.0.0.0", 0, Means::Unicast, 2),
            route("128.0.0.0", 1, Means::Unicast, 3),
            route("172.17.0.0", 16, Means::Unicast, 4),
            route("172.16.0.255", 32, Means::Other, 4),
            route("172.16.0.0", 24, Means::Unicast, 9),
        ];
        assert_eq!(overlap(subnet, Some(9), &free), None);
        assert!(overlap(subnet, None, &free).is_some());
        for taken in
            [route("172.16.0.0", 12, Means::Unicast, 3), route("172.16.0.9", 32, Means::Local, 3)]
        {
            assert_eq!(overlap(subnet, Some(9), &[taken]), Some(&taken));
        }
    }
}
