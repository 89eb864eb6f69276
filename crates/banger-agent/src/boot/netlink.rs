//! rtnetlink(7) requests, built and read as bytes: no message of this program has more than a
//! handful of attributes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// `IFA_F_NODAD`: the host gave the address, nobody else has it.
const IFA_F_NODAD: u8 = 0x02;
const IFF_UP: u32 = 0x1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One request under construction.
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self { bytes }
    }

    /// `struct rtattr`: length without padding, type, payload, padding to four.
    fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        self.bytes.extend((payload.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = (self.bytes.len() as u32).to_ne_bytes();
        for (slot, byte) in self.bytes.iter_mut().zip(length) {
            *slot = byte;
        }
        self.bytes
    }

    /// Takes a link up, with another MTU if one is given.
    pub fn link_up(index: u32, mtu: Option<u32>) -> Self {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        let request = Self::new(RTM_NEWLINK, 0, &body);
        match mtu {
            Some(mtu) => request.attribute(IFLA_MTU, &mtu.to_ne_bytes()),
            None => request,
        }
    }

    /// Gives a link an address.
    pub fn address(index: u32, address: IpAddr, prefix: u8) -> Self {
        let (family, flags) = match address {
            IpAddr::V4(_) => (AF_INET, 0),
            IpAddr::V6(_) => (AF_INET6, IFA_F_NODAD),
        };
        let mut body = vec![family, prefix, flags, 0];
        body.extend(index.to_ne_bytes());
        let bytes = octets(address);
        Self::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
            .attribute(IFA_LOCAL, &bytes)
            .attribute(IFA_ADDRESS, &bytes)
    }

    /// Sends everything that has no better way to `gateway`.
    pub fn default_route(index: u32, gateway: Ipv4Addr) -> Self {
        let body = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
        Self::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
            .attribute(RTA_GATEWAY, &gateway.octets())
            .attribute(RTA_OIF, &index.to_ne_bytes())
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A socket to the kernel's routing.
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    /// As socket(2), bind(2).
    pub fn open() -> io::Result<Self> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is 0, the default.
            None,
        )?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Sends a request and waits for the kernel's answer, which is immediate.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn ask(&self, request: Request) -> io::Result<()> {
        net::sendto(
            &self.socket,
            &request.finish(),
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answer = [0; 8192];
        let (length, _) = net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
        verdict(answer.get(..length).unwrap_or_default())
    }
}

/// Reads `struct nlmsgerr`: 0 is the acknowledgement, else a negative error number.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let unclear = || io::Error::new(io::ErrorKind::InvalidData, "unexpected answer from netlink");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).ok_or_else(unclear)?;
    let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
    match (u16::from_ne_bytes(kind), code.map(i32::from_ne_bytes)) {
        (NLMSG_ERROR, Some(0)) => Ok(()),
        (NLMSG_ERROR, Some(code)) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(unclear()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_up_requests_have_the_kernels_layout() {
        let bytes = Request::link_up(2, Some(1400)).finish();
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
        let four = Request::address(3, "10.0.2.15".parse().unwrap(), 24).finish();
        assert_eq!(four[16..20], [2, 24, 0, 0]);
        assert_eq!(four[28..32], [10, 0, 2, 15]);
        assert_eq!(four.len(), 16 + 8 + 8 + 8);
        let six = Request::address(3, "fd00::2".parse().unwrap(), 64).finish();
        assert_eq!(six[16..20], [10, 64, 2, 0]);
        assert_eq!(six.len(), 16 + 8 + 20 + 20);
    }

    #[test]
    fn default_route_goes_through_the_link() {
        let bytes = Request::default_route(5, Ipv4Addr::new(10, 0, 2, 2)).finish();
        assert_eq!(bytes.len(), 16 + 12 + 8 + 8);
        assert_eq!(bytes[17], 0, "destination of no length is everything");
        assert_eq!(bytes[32..36], [10, 0, 2, 2]);
        assert_eq!(bytes[40..44], 5u32.to_ne_bytes());
    }

    #[test]
    fn answers() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; 36];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            verdict(&bytes)
        };
        assert!(answer(2, 0).is_ok());
        assert_eq!(answer(2, -17).unwrap_err().raw_os_error(), Some(17));
        assert!(answer(16, 0).is_err());
        assert!(verdict(&[0; 10]).is_err());
    }
}
