//! A fake guest: opens the TAP of a VM and sends and receives frames.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use banger_base::Lease;
use banger_base::VmId;
use banger_sys::tap::Tap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Maximum wait for an expected packet.
pub const SOON: Duration = Duration::from_secs(3);
/// Wait before an unexpected packet counts as absent.
pub const NEVER: Duration = Duration::from_millis(150);
/// Length of `virtio_net_hdr` before each frame, in bytes.
const VNET: usize = 10;

pub type Mac = [u8; 6];
pub const BROADCAST: Mac = [0xff; 6];
/// LLDP's address: a bridge delivers such frames to the host as input of the port.
pub const LLDP: Mac = [1, 0x80, 0xc2, 0, 0, 0x0e];
/// A reserved address (IEEE 802.1Q): delivered to the host after one hook of the bridge.
pub const RESERVED: Mac = [1, 0x80, 0xc2, 0, 0, 0x03];

pub struct Guest {
    tap: File,
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// A UDP packet with both addresses and ports.
#[derive(Clone, Copy, Debug)]
pub struct Udp {
    pub from: (Mac, Ipv4Addr),
    pub to: (Mac, Ipv4Addr),
    pub port: u16,
}

impl Guest {
    pub fn new(vm: &VmId, lease: &Lease) -> Self {
        let tap = Tap::open(&vm.tap_name()).unwrap().into_file();
        let guest = Self { tap, mac: vm.mac().0, address: lease.address, gateway: lease.gateway };
        // The port forwards once it has a carrier, which takes the kernel a moment.
        assert!((0..20).any(|_| guest.arp(guest.gateway).is_some()), "the gateway does not answer");
        guest
    }

    pub fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; VNET];
        bytes.extend(frame);
        (&self.tap).write_all(&bytes).unwrap();
    }

    /// Returns the first frame that `wanted` accepts; answers ARP requests meanwhile.
    pub fn receive<T>(&self, within: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: 0, tv_nsec: left.as_nanos().min(999_999_999) as i64 };
            let mut fds = [PollFd::new(&self.tap, PollFlags::IN)];
            if poll(&mut fds, Some(&left)).unwrap() == 0 && Instant::now() >= deadline {
                return None;
            }
            if fds[0].revents().is_empty() {
                continue;
            }
            let mut bytes = [0; 2048];
            let length = (&self.tap).read(&mut bytes).unwrap();
            let frame = &bytes[VNET..length];
            self.answer_arp(frame);
            if let Some(found) = wanted(frame) {
                return Some(found);
            }
        }
    }

    fn answer_arp(&self, frame: &[u8]) {
        if frame.len() >= 42
            && frame[12..14] == [8, 6]
            && frame[20..22] == [0, 1]
            && frame[38..42] == self.address.octets()
        {
            let (mac, address) = (sender(frame), Ipv4Addr::from(four(&frame[28..32])));
            self.send(&arp(2, (self.mac, self.address), (mac, address), mac));
        }
    }

    /// Sends an ARP request; returns the answer.
    pub fn arp(&self, address: Ipv4Addr) -> Option<Mac> {
        self.arp_as((self.mac, self.address), self.mac, address)
    }

    /// As [`Self::arp`], with other senders in packet and frame.
    pub fn arp_as(&self, from: (Mac, Ipv4Addr), by: Mac, address: Ipv4Addr) -> Option<Mac> {
        let mut frame = arp(1, from, ([0; 6], address), BROADCAST);
        frame[6..12].copy_from_slice(&by);
        self.send(&frame);
        let within = NEVER;
        self.receive(within, |frame| {
            let answer = frame.len() >= 42
                && frame[12..14] == [8, 6]
                && frame[20..22] == [0, 2]
                && frame[28..32] == address.octets();
            answer.then(|| sender(frame))
        })
    }

    /// Sends a UDP packet through the gateway, from the guest's own addresses.
    pub fn udp(&self, to: Ipv4Addr, port: u16, text: &str) {
        let mac = self.arp(self.gateway).unwrap();
        self.send(&udp(self.to((mac, to), port), text));
    }

    /// A packet from this guest to another address.
    pub fn to(&self, to: (Mac, Ipv4Addr), port: u16) -> Udp {
        Udp { from: (self.mac, self.address), to, port }
    }

    /// Waits for a UDP packet with this text; returns its source address and both ports.
    pub fn hears(&self, within: Duration, text: &str) -> Option<(Ipv4Addr, u16, u16)> {
        self.receive(within, |frame| {
            let udp = frame.len() > 42
                && frame[12..14] == [8, 0]
                && frame[23] == 17
                && frame[42..].starts_with(text.as_bytes());
            let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            udp.then(|| (Ipv4Addr::from(four(&frame[26..30])), port(34), port(36)))
        })
    }
}

fn sender(frame: &[u8]) -> Mac {
    frame[22..28].try_into().unwrap()
}

fn four(bytes: &[u8]) -> [u8; 4] {
    bytes.try_into().unwrap()
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

pub fn arp(operation: u16, from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), frame_to: Mac) -> Vec<u8> {
    let mut frame = ethernet(frame_to, from.0, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    for (mac, address) in [from, to] {
        frame.extend(mac);
        frame.extend(address.octets());
    }
    frame
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame with IPv4 and UDP; the UDP checksum is optional over IPv4.
pub fn udp(packet: Udp, text: &str) -> Vec<u8> {
    let mut frame = ethernet(packet.to.0, packet.from.0, 0x0800);
    let length = 28 + text.len() as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(packet.from.1.octets());
    header.extend(packet.to.1.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    frame.extend(header);
    frame.extend(4000u16.to_be_bytes());
    frame.extend(packet.port.to_be_bytes());
    frame.extend((length - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(text.as_bytes());
    frame
}

/// As [`udp`], with an 802.1Q tag of VLAN 0, which receivers ignore.
pub fn tagged(packet: Udp, text: &str) -> Vec<u8> {
    let mut frame = udp(packet, text);
    frame.splice(12..12, [0x81, 0, 0, 0]);
    frame
}

/// An Ethernet frame with IPv6 and UDP.
pub fn udp6(macs: (Mac, Mac), to: Ipv6Addr, port: u16, text: &str) -> Vec<u8> {
    let from = link_local(macs.0);
    let mut frame = ethernet(macs.1, macs.0, 0x86dd);
    let length = 8 + text.len() as u16;
    let mut body = 4000u16.to_be_bytes().to_vec();
    body.extend(port.to_be_bytes());
    body.extend(length.to_be_bytes());
    body.extend([0, 0]);
    body.extend(text.as_bytes());
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend(u32::from(length).to_be_bytes());
    pseudo.extend([0, 0, 0, 17]);
    pseudo.extend(&body);
    let sum = checksum(&pseudo).to_be_bytes();
    body[6..8].copy_from_slice(&sum);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([17, 64]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(body);
    frame
}

/// The link-local address that an interface derives from this MAC: RFC 4291, appendix A.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}
