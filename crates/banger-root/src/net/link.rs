//! Interfaces, addresses and routes, over rtnetlink(7). Errors are plain I/O errors: callers add
//! the object and the purpose.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use banger_base::MacAddress;
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Nla};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::netlink::Netlink;
use crate::protocol::Did;

/// `IFLA_TUN_OWNER` of linux/if_link.h, which `netlink-packet-route` does not name.
const IFLA_TUN_OWNER: u16 = 1;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it is an Ethernet interface.
    pub mac: Option<MacAddress>,
    /// Whether it is up.
    pub up: bool,
    /// `bridge`, `tun`, `veth`…; empty for hardware.
    pub kind: String,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Whether it is an isolated bridge port.
    pub isolated: bool,
    /// For a TAP: the uid that may open it.
    pub owner: Option<u32>,
}

/// Type of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Packets are sent on.
    Unicast,
    /// Packets are for this host.
    Local,
    /// Another type.
    Other,
}

/// An IPv4 route of any table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub to: Ipv4Net,
    /// Type.
    pub means: Means,
    /// Index of the outgoing interface; 0 for none or several.
    pub link: u32,
    /// Whether it leads through a router.
    pub routed: bool,
}

impl Route {
    /// Whether it is the address of this host itself.
    pub fn is_own_address(&self, address: Ipv4Addr) -> bool {
        self.means == Means::Local && self.to.prefix_len() == 32 && self.to.addr() == address
    }
}

/// Owner of a TAP, from the attributes of its type.
fn tap_owner(data: &InfoData) -> Option<u32> {
    let InfoData::Tun(attributes) = data else { return None };
    let owner = attributes.iter().find(|attribute| attribute.kind() == IFLA_TUN_OWNER)?;
    let mut bytes = [0; 4];
    (owner.value_len() == bytes.len()).then(|| owner.emit_value(&mut bytes))?;
    Some(u32::from_ne_bytes(bytes))
}

fn is_isolated(port: &InfoPortData) -> bool {
    let InfoPortData::BridgePort(attributes) = port else { return false };
    attributes.contains(&InfoBridgePort::Isolated(true))
}

/// `None`: the interface has no name.
fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: String::new(),
        master: None,
        isolated: false,
        owner: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().ok().map(MacAddress);
            }
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::Data(data) => link.owner = tap_owner(data),
                        LinkInfo::PortData(port) => link.isolated = is_isolated(port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// `None`: the prefix is longer than an address.
fn route(message: &RouteMessage) -> Option<Route> {
    let (mut to, mut link, mut routed) = (Ipv4Addr::UNSPECIFIED, 0, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Oif(index) => link = *index,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                routed = true;
            }
            _ => {}
        }
    }
    let means = match message.header.kind {
        RouteType::Unicast => Means::Unicast,
        RouteType::Local => Means::Local,
        _ => Means::Other,
    };
    let to = Ipv4Net::new(to, message.header.destination_prefix_length).ok()?;
    Some(Route { to, means, link, routed })
}

/// A request about an interface.
fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
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
        Netlink::open(NETLINK_ROUTE).map(Self)
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// Netlink errors, except ENODEV.
    pub fn get(&self, name: &str) -> io::Result<Option<Link>> {
        let mut message = about(0);
        message.attributes.push(LinkAttribute::IfName(name.into()));
        match self.0.get(RouteNetlinkMessage::GetLink(message)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(link(&message)),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces. One that cannot be decoded is another program's and is left out.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn all(&self) -> io::Result<Vec<Link>> {
        let listed = self.0.list(&RouteNetlinkMessage::GetLink(about(0)), |_| Ok(()))?;
        let links = listed.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => link(message),
            _ => None,
        });
        Ok(links.collect())
    }

    /// All IPv4 routes of all tables, the host's own addresses among them.
    ///
    /// # Errors
    /// Netlink errors; a route that cannot be decoded, since it might overlap with the subnet of
    /// VMs.
    pub fn routes(&self) -> io::Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let listed = self.0.list(&RouteNetlinkMessage::GetRoute(message), Err)?;
        let routes = listed.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => route(message),
            _ => None,
        });
        Ok(routes.collect())
    }

    fn set(&self, message: LinkMessage, flags: u16) -> io::Result<()> {
        self.0.change(RouteNetlinkMessage::NewLink(message), flags)
    }

    /// Makes a bridge without forwarding delay and multicast snooping.
    ///
    /// # Errors
    /// Netlink errors; `EEXIST`.
    pub fn make_bridge(&self, name: &str, mac: MacAddress) -> io::Result<()> {
        let mut message = about(0);
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac.0.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![
                    InfoBridge::StpState(BridgeStpState::Disabled),
                    InfoBridge::ForwardDelay(0),
                    InfoBridge::MulticastSnooping(false),
                ])),
            ]),
        ];
        self.set(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        let address = IpAddr::V4(address);
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        let message = RouteNetlinkMessage::NewAddress(message);
        self.0.change(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn up(&self, index: u32) -> io::Result<()> {
        let mut message = about(index);
        (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
        self.set(message, 0)
    }

    /// Makes an interface an isolated port of a bridge, without learning and flooding: it receives
    /// only frames for the address of its [static entry](Self::known). Its host side takes no part
    /// in ARP.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn make_port(&self, index: u32, bridge: u32) -> io::Result<()> {
        let mut message = about(index);
        (message.header.flags, message.header.change_mask) = (LinkFlags::Noarp, LinkFlags::Noarp);
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.set(message, 0)?;
        let mut message = about(index);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::Isolated(true),
                InfoBridgePort::Learning(false),
                InfoBridgePort::UnicastFlood(false),
            ])),
        ]));
        self.set(message, 0)
    }

    /// Adds a static entry for a port to the bridge's forwarding database.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn known(&self, port: u32, mac: MacAddress) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        message.header.state = NeighbourState::Noarp;
        message.header.flags = NeighbourFlags::Controller;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.into()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.0.change(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Renames an interface that is down.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        let mut message = about(index);
        message.attributes.push(LinkAttribute::IfName(name.into()));
        self.set(message, 0)
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// Netlink errors, except ENODEV.
    pub fn delete(&self, index: u32) -> io::Result<Did> {
        match self.0.change(RouteNetlinkMessage::DelLink(about(index)), 0) {
            Ok(()) => Ok(Did::Removed),
            Err(error) if is(&error, Errno::NODEV) => Ok(Did::WasAbsent),
            Err(error) => Err(error),
        }
    }
}

/// Whether an I/O error has this errno.
pub fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
