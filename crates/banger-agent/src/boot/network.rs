//! Bringing up lo and the one interface the host gave the machine.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use banger_agent_proto::boot::NetworkConfig;

use super::log::BootLog;
use super::netlink::Netlink;
use crate::fault::{Context, Fault};

/// Index of lo in every network name space.
const LOOPBACK: u32 = 1;

/// Configures everything; a machine without its network is still reached over vsock.
pub fn configure(config: Option<&NetworkConfig>, log: &mut BootLog) {
    let netlink = match Netlink::open().context(|| "cannot open netlink".to_owned()) {
        Ok(netlink) => netlink,
        Err(fault) => return log.warn(fault.chain()),
    };
    log.note(netlink.set_link_up(LOOPBACK, None).context(|| "cannot bring lo up".to_owned()));
    if let Some(config) = config {
        log.note(bring_up(&netlink, config));
    }
}

fn bring_up(netlink: &Netlink, config: &NetworkConfig) -> Result<(), Fault> {
    let name = interface_by_mac(&config.mac)
        .ok_or_else(|| Fault::new(format!("the guest has no interface `{}`", config.mac)))?;
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .context(|| format!("cannot read the index of `{name}`"))?;
    let index = index
        .trim()
        .parse()
        .map_err(|_| Fault::new(format!("`{name}` has no index but `{}`", index.trim())))?;
    netlink.set_link_up(index, config.mtu).context(|| format!("cannot bring `{name}` up"))?;
    for text in &config.addresses {
        let (address, prefix) = parse_address(text)?;
        match netlink.add_address(index, address, prefix) {
            // The kernel answers so where the address is there already.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            outcome => outcome.context(|| format!("cannot give `{name}` the address `{text}`"))?,
        }
    }
    if let Some(gateway) = &config.gateway {
        let address: Ipv4Addr = gateway
            .parse()
            .map_err(|_| Fault::new(format!("gateway `{gateway}` is no IPv4 address")))?;
        netlink
            .add_default_route(index, address)
            .context(|| format!("cannot set the default route to `{gateway}`"))?;
    }
    Ok(())
}

/// `10.0.2.15/24` or `fd00::2/64`.
fn parse_address(text: &str) -> Result<(IpAddr, u8), Fault> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest)?;
        Some((address, prefix))
    });
    parsed.ok_or_else(|| Fault::new(format!("`{text}` is no address with prefix length")))
}

/// The name of the interface with this hardware address.
pub fn interface_by_mac(mac: &str) -> Option<String> {
    fs::read_dir("/sys/class/net").ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        address.trim().eq_ignore_ascii_case(mac).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_address("10.0.2.15/24").unwrap(), ("10.0.2.15".parse().unwrap(), 24));
        assert_eq!(parse_address("fd00::2/64").unwrap(), ("fd00::2".parse().unwrap(), 64));
        for wrong in ["10.0.2.15", "10.0.2.15/33", "fd00::/129", "x/8", "10.0.2.15/-1", ""] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }
}
