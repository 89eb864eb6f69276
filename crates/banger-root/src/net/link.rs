//! Interfaces, addresses and routes, over rtnetlink(7). Errors are plain: the callers know what the
//! thing is for.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::netlink::{
    CREATE, EXCLUSIVE, Family, Netlink, REPLACE, Request, attribute, attributes, number,
};
use crate::words::Did;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_TUN_OWNER: u16 = 1;

const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;

const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const NDA_LLADDR: u16 = 2;
/// A neighbour that nothing learned changes.
const NUD_NOARP: u16 = 0x40;
/// The entry is the bridge's.
const NTF_MASTER: u8 = 0x04;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;

/// Bytes of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// Bytes of `struct rtmsg`.
const RTMSG: usize = 12;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it is an Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Whether it is up.
    pub up: bool,
    /// `bridge`, `tun`, `veth`…; empty for hardware.
    pub kind: String,
    /// Number of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Whether it is a port that reaches no other such port.
    pub isolated: bool,
    /// For a TAP: the only user who may open it.
    pub owner: Option<u32>,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// They are sent on.
    Unicast,
    /// They are for this host.
    Local,
    /// Anything else.
    Other,
}

/// An IPv4 route of any table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// What for.
    pub means: Means,
    /// Through which interface, by number; 0 for none or several.
    pub link: u32,
    /// Whether through a router.
    pub routed: bool,
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for number in [index, flags, change] {
        body.extend(number.to_ne_bytes());
    }
    body
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn link(message: &[u8]) -> Option<Link> {
    let index = number(message.get(4..8)?)?;
    let flags = number(message.get(8..12)?)?;
    let rest = message.get(IFINFO..)?;
    let info = attribute(rest, IFLA_LINKINFO).unwrap_or_default();
    let data = attribute(info, IFLA_INFO_DATA).unwrap_or_default();
    let port = attribute(info, IFLA_INFO_SLAVE_DATA).unwrap_or_default();
    let kind = attribute(info, IFLA_INFO_KIND).map(text).unwrap_or_default();
    let owner = if kind == "tun" { attribute(data, IFLA_TUN_OWNER).and_then(number) } else { None };
    Some(Link {
        index,
        name: text(attribute(rest, IFLA_IFNAME)?),
        mac: attribute(rest, IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()),
        up: flags & IFF_UP != 0,
        master: attribute(rest, IFLA_MASTER).and_then(number),
        isolated: attribute(port, IFLA_BRPORT_ISOLATED).is_some_and(|value| value == [1]),
        kind,
        owner,
    })
}

fn route(message: &[u8]) -> Option<Route> {
    let (prefix, kind) = (*message.get(1)?, *message.get(7)?);
    let rest = message.get(RTMSG..)?;
    let to = match attribute(rest, RTA_DST) {
        Some(bytes) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?),
        None => Ipv4Addr::UNSPECIFIED,
    };
    Some(Route {
        to,
        prefix,
        means: match kind {
            RTN_UNICAST => Means::Unicast,
            RTN_LOCAL => Means::Local,
            _ => Means::Other,
        },
        link: attribute(rest, RTA_OIF).and_then(number).unwrap_or_default(),
        routed: attributes(rest)
            .any(|(kind, _)| [RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH].contains(&kind)),
    })
}

/// The kernel's interfaces.
#[derive(Debug)]
pub struct Links(Netlink);

impl Links {
    /// Those of the calling thread's network namespace.
    ///
    /// # Errors
    /// socket(2), bind(2).
    pub fn open() -> io::Result<Self> {
        Netlink::open(Family::Route).map(Self)
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// The kernel's, but for there being none.
    pub fn get(&self, name: &str) -> io::Result<Option<Link>> {
        let request = Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0)).with_text(IFLA_IFNAME, name);
        match self.0.get(request) {
            Ok(message) => Ok(link(&message)),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all(&self) -> io::Result<Vec<Link>> {
        let listed = self.0.list(|| Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0)))?;
        Ok(listed.iter().filter_map(|message| link(message)).collect())
    }

    /// All IPv4 routes of all tables, the host's own addresses among them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&self) -> io::Result<Vec<Route>> {
        let mut body = [0; RTMSG];
        body[0] = AF_INET;
        let listed = self.0.list(|| Request::new(RTM_GETROUTE, 0, &body))?;
        Ok(listed.iter().filter_map(|message| route(message)).collect())
    }

    /// Makes a bridge that starts forwarding at once and learns nothing about groups.
    ///
    /// # Errors
    /// The kernel's; `EEXIST`.
    pub fn make_bridge(&self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let request = Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &ifinfo(0, 0, 0))
            .with_text(IFLA_IFNAME, name)
            .with(IFLA_ADDRESS, &mac)
            .nest(IFLA_LINKINFO, |info| {
                info.with(IFLA_INFO_KIND, b"bridge").nest(IFLA_INFO_DATA, |data| {
                    data.with(IFLA_BR_STP_STATE, &0u32.to_ne_bytes())
                        .with(IFLA_BR_FORWARD_DELAY, &0u32.to_ne_bytes())
                        .with(IFLA_BR_MCAST_SNOOPING, &[0])
                })
            });
        self.0.change(request)
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut body = vec![AF_INET, prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        let request = Request::new(RTM_NEWADDR, CREATE | REPLACE, &body)
            .with(IFA_LOCAL, &address.octets())
            .with(IFA_ADDRESS, &address.octets());
        self.0.change(request)
    }

    /// Takes an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn up(&self, index: u32) -> io::Result<()> {
        self.0.change(Request::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP)))
    }

    /// Makes an interface a port of a bridge: one that reaches no other such port, that gets only
    /// what is for the address it is [known by](Self::known), and whose own host side takes no part
    /// in ARP.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_port(&self, index: u32, bridge: u32) -> io::Result<()> {
        let request = Request::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_NOARP, IFF_NOARP))
            .with(IFLA_MASTER, &bridge.to_ne_bytes());
        self.0.change(request)?;
        let request =
            Request::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0)).nest(IFLA_LINKINFO, |info| {
                info.with(IFLA_INFO_SLAVE_KIND, b"bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
                    port.with(IFLA_BRPORT_ISOLATED, &[1])
                        .with(IFLA_BRPORT_LEARNING, &[0])
                        .with(IFLA_BRPORT_UNICAST_FLOOD, &[0])
                })
            });
        self.0.change(request)
    }

    /// Tells the bridge what is behind a port, for good.
    ///
    /// # Errors
    /// The kernel's.
    pub fn known(&self, port: u32, mac: [u8; 6]) -> io::Result<()> {
        // struct ndmsg: family, padding, interface, state, flags, type.
        let mut body = vec![AF_BRIDGE, 0, 0, 0];
        body.extend(port.to_ne_bytes());
        body.extend(NUD_NOARP.to_ne_bytes());
        body.extend([NTF_MASTER, 0]);
        let request = Request::new(RTM_NEWNEIGH, CREATE | REPLACE, &body);
        self.0.change(request.with(NDA_LLADDR, &mac))
    }

    /// Gives an interface that is down another name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        let request = Request::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
        self.0.change(request.with_text(IFLA_IFNAME, name))
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// The kernel's, but for it being gone.
    pub fn delete(&self, index: u32) -> io::Result<Did> {
        match self.0.change(Request::new(RTM_DELLINK, 0, &ifinfo(index, 0, 0))) {
            Ok(()) => Ok(Did::Removed),
            Err(error) if is(&error, Errno::NODEV) => Ok(Did::WasAbsent),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error is this one.
pub fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
