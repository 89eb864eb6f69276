//! Requests that change interfaces, addresses and routes, over rtnetlink(7): a socket of
//! `netlink-sys`, messages of `netlink-packet-route`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// The kernel answers at once; no answer within this time is an error.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `RTM_NEWLINK`, `RTM_NEWADDR` and `RTM_NEWROUTE` of linux/rtnetlink.h, which
/// `netlink-packet-route` keeps private.
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// `IFLA_MTU` of linux/if_link.h.
const MTU: u16 = 4;

/// A message about a link with the MTU as its only attribute. `LinkMessage` covers all attributes,
/// which makes the agent 45 KB larger.
#[derive(Default)]
struct Link {
    header: LinkHeader,
    mtu: Option<DefaultNla>,
}

impl Emitable for Link {
    fn buffer_len(&self) -> usize {
        self.header.buffer_len() + self.mtu.as_ref().map_or(0, Emitable::buffer_len)
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.header.emit(buffer);
        let rest = buffer.get_mut(self.header.buffer_len()..);
        if let (Some(mtu), Some(rest)) = (&self.mtu, rest) {
            mtu.emit(rest);
        }
    }
}

/// A request. `RouteNetlinkMessage` covers all messages of rtnetlink and their decoding, which
/// makes the agent 500 KB larger.
enum Request {
    Link(Link),
    Address(AddressMessage),
    Route(RouteMessage),
}

impl Request {
    fn body(&self) -> &dyn Emitable {
        match self {
            Self::Link(message) => message,
            Self::Address(message) => message,
            Self::Route(message) => message,
        }
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        match self {
            Self::Link(_) => NEW_LINK,
            Self::Address(_) => NEW_ADDRESS,
            Self::Route(_) => NEW_ROUTE,
        }
    }

    fn buffer_len(&self) -> usize {
        self.body().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.body().emit(buffer);
    }
}

impl NetlinkDeserializable for Request {
    type Error = DecodeError;

    /// Requests are answered with an acknowledgement or an error, never with an object.
    fn deserialize(header: &NetlinkHeader, _: &[u8]) -> Result<Self, DecodeError> {
        Err(format!("unexpected message type {}", header.message_type).into())
    }
}

/// Sets a link up, and its MTU if one is given.
fn link_up(index: u32, mtu: Option<u32>) -> Request {
    let mut message = Link::default();
    message.header.index = index;
    (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    message.mtu = mtu.map(|mtu| DefaultNla::new(MTU, mtu.to_ne_bytes().to_vec()));
    Request::Link(message)
}

/// Adds an address to a link. IPv6 does not probe for a duplicate (`IFA_F_NODAD`): the host assigns
/// each address once.
fn address(index: u32, address: IpAddr, prefix_len: u8) -> Request {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.flags) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, AddressHeaderFlags::empty()),
        IpAddr::V6(_) => (AddressFamily::Inet6, AddressHeaderFlags::Nodad),
    };
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    Request::Address(message)
}

/// Adds the IPv4 default route.
fn default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    Request::Route(message)
}

/// A request as the kernel reads it; `flags` are added to those of every request.
fn encode(message: Request, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the kernel's answer: an acknowledgement or an error number.
fn decode(answer: &[u8]) -> io::Result<()> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    match NetlinkMessage::<Request>::deserialize(answer).map_err(invalid)?.payload {
        // Error code 0 is the acknowledgement.
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected answer from netlink")),
    }
}

/// A socket to the kernel's network configuration.
pub struct Netlink(Socket);

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    /// socket(2), bind(2), setsockopt(2).
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self(socket))
    }

    /// Sets the link with this index up, and its MTU in bytes if one is given.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn set_link_up(&self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        self.request(link_up(index, mtu), 0)
    }

    /// Adds an address with its prefix length in bits to a link, or replaces it.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn add_address(&self, index: u32, ip: IpAddr, prefix_len: u8) -> io::Result<()> {
        self.request(address(index, ip, prefix_len), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds or replaces the IPv4 default route.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn add_default_route(&self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        self.request(default_route(index, gateway), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn request(&self, message: Request, flags: u16) -> io::Result<()> {
        self.0.send_to(&encode(message, flags), &SocketAddr::new(0, 0), 0)?;
        loop {
            match self.0.recv_from_full() {
                Ok((answer, _)) => return decode(&answer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_up_requests_have_the_kernels_layout() {
        let bytes = encode(link_up(2, Some(1400)), 0);
        assert_eq!(bytes.len(), 16 + 16 + 8);
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 16u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 5u16.to_ne_bytes());
        assert_eq!(bytes[20..24], 2u32.to_ne_bytes());
        assert_eq!(bytes[24..28], 1u32.to_ne_bytes(), "flags");
        assert_eq!(bytes[28..32], 1u32.to_ne_bytes(), "which flags to change");
        assert_eq!(bytes[32..34], 8u16.to_ne_bytes());
        assert_eq!(bytes[36..40], 1400u32.to_ne_bytes());
    }

    #[test]
    fn addresses_of_both_families() {
        let replace = NLM_F_CREATE | NLM_F_REPLACE;
        let four = encode(address(3, "10.0.2.15".parse().unwrap(), 24), replace);
        assert_eq!(four[6..8], 0x505u16.to_ne_bytes());
        assert_eq!(four[16..20], [2, 24, 0, 0]);
        assert_eq!(four[28..32], [10, 0, 2, 15]);
        assert_eq!(four.len(), 16 + 8 + 8 + 8);
        let six = encode(address(3, "fd00::2".parse().unwrap(), 64), replace);
        assert_eq!(six[16..20], [10, 64, 2, 0]);
        assert_eq!(six.len(), 16 + 8 + 20 + 20);
    }

    #[test]
    fn default_route_goes_through_the_link() {
        let bytes = encode(default_route(5, Ipv4Addr::new(10, 0, 2, 2)), 0);
        assert_eq!(bytes.len(), 16 + 12 + 8 + 8);
        assert_eq!(bytes[16..28], [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[32..36], [10, 0, 2, 2]);
        assert_eq!(bytes[40..44], 5u32.to_ne_bytes());
    }

    #[test]
    fn answers_are_an_acknowledgement_or_an_error_of_the_kernel() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; 36];
            bytes[..4].copy_from_slice(&36u32.to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            decode(&bytes)
        };
        assert!(answer(2, 0).is_ok());
        assert_eq!(answer(2, -17).unwrap_err().raw_os_error(), Some(17));
        assert!(answer(16, 0).is_err());
        assert!(decode(&[0; 10]).is_err());
        assert!(decode(&[]).is_err());
    }

    /// The loopback interface of a network namespace is configured by the kernel itself.
    #[test]
    fn the_kernel_answers_a_request() {
        let netlink = Netlink::open().unwrap();
        let absent = netlink.set_link_up(u32::MAX >> 1, None).unwrap_err();
        assert!(absent.raw_os_error().is_some(), "{absent:?}");
    }
}
