//! Netlink messages as bytes: netlink(7), rtnetlink(7). No request of ours has more than a handful
//! of attributes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// Things changed while they were listed.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Replace what is there.
pub const REPLACE: u16 = 0x100;
/// Only if there is none.
pub const EXCLUSIVE: u16 = 0x200;
/// Make it if there is none.
pub const CREATE: u16 = 0x400;

/// The payload has attributes in it.
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE: u16 = 0x3fff;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel sends no more at once to a reader that offers this much.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; longer than this means that something is wrong.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a list that changed underneath is begun again.
const TRIES: u32 = 16;

/// Which part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Interfaces, addresses, routes.
    Route,
    /// nftables.
    Netfilter,
}

/// One request under construction.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// Of this type, with the fixed part that this type has.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    /// `struct rtattr`: length without padding, type, payload, padding to four.
    #[must_use]
    pub fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        self.0.extend((payload.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A string with its final zero.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Attributes in an attribute.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NLA_F_NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = ((filled.0.len() - start) as u16).to_ne_bytes();
        filled.put(start, &length);
        filled
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (slot, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    }

    fn finish(mut self, more_flags: u16) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.put(0, &length);
        let flags = u16_at(&self.0, 6).unwrap_or_default() | more_flags;
        self.put(6, &flags.to_ne_bytes());
        self.0
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A number of the fixed part or of an attribute, in the host's order.
pub fn number(bytes: &[u8]) -> Option<u32> {
    u32_at(bytes, 0)
}

/// The attributes in these bytes; what does not fit its own length ends them.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE;
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The first attribute of a type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(other, _)| *other == kind).map(|(_, payload)| payload)
}

fn unclear() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected answer from netlink")
}

/// One message of an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Reads `struct nlmsgerr`: 0 is the acknowledgement, else a negative error number.
fn verdict(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(unclear()),
    }
}

/// A socket to the kernel.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens it, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// socket(2), bind(2), setsockopt(2).
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            // 0, the default.
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let kind = SocketType::RAW;
        let socket =
            net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self(socket))
    }

    fn send(&self, request: Request, flags: u16) -> io::Result<()> {
        let bytes = request.finish(flags);
        let to = SocketAddrNetlink::new(0, 0);
        net::sendto(&self.0, &bytes, SendFlags::empty(), &to)?;
        Ok(())
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = loop {
            match net::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        buffer.get(..length).ok_or_else(unclear)
    }

    /// Changes something.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn change(&self, request: Request) -> io::Result<()> {
        self.send(request, NLM_F_ACK)?;
        let mut buffer = vec![0; BUFFER];
        let answer = self.receive(&mut buffer)?;
        let message = messages(answer).next().ok_or_else(unclear)?;
        if message.kind == NLMSG_ERROR { verdict(message.body) } else { Err(unclear()) }
    }

    /// Asks for one thing: the bytes after the header of the answer.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn get(&self, request: Request) -> io::Result<Vec<u8>> {
        self.send(request, 0)?;
        let mut buffer = vec![0; BUFFER];
        let answer = self.receive(&mut buffer)?;
        let message = messages(answer).next().ok_or_else(unclear)?;
        if message.kind == NLMSG_ERROR {
            return verdict(message.body).and_then(|()| Err(unclear()));
        }
        Ok(message.body.to_vec())
    }

    /// Lists everything of a kind. `make` builds the request.
    ///
    /// # Errors
    /// The kernel's refusal; `EINTR` if it changed each time while it was listed.
    pub fn list(&self, make: impl Fn() -> Request) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..TRIES {
            self.send(make(), NLM_F_DUMP)?;
            if let Some(listed) = self.listed()? {
                return Ok(listed);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// `None`: it changed meanwhile.
    fn listed(&self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let (mut found, mut changed) = (Vec::new(), false);
        let mut buffer = vec![0; BUFFER];
        loop {
            let answer = self.receive(&mut buffer)?;
            if answer.is_empty() {
                return Err(unclear());
            }
            for message in messages(answer) {
                changed |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => return Ok((!changed).then_some(found)),
                    NLMSG_ERROR => return verdict(message.body).and_then(|()| Err(unclear())),
                    _ => found.push(message.body.to_vec()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_the_kernel_wants_them() {
        let request = Request::new(16, CREATE, &[7; 4])
            .with_text(3, "br-fc")
            .nest(18, |inner| inner.with(1, b"bridge"));
        let bytes = request.finish(NLM_F_ACK);
        assert_eq!(bytes.len(), 16 + 4 + 12 + 4 + 12);
        assert_eq!(bytes[..4], 48u32.to_ne_bytes());
        assert_eq!(bytes[6..8], (CREATE | 5).to_ne_bytes());
        assert_eq!(bytes[20..24], [10, 0, 3, 0]);
        assert_eq!(bytes[32..36], [16, 0, 18, 0x80]);
        assert_eq!(bytes[36..40], [10, 0, 1, 0]);
        let nested = attribute(&bytes[20..], 18).unwrap();
        assert_eq!(attribute(nested, 1).unwrap(), b"bridge");
        assert_eq!(attribute(nested, 2), None);
    }

    #[test]
    fn answers_that_lie_about_their_length_end() {
        for bytes in [&[][..], &[4], &[3, 0, 1, 0], &[200, 0, 1, 0, 1], &[0, 0, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(messages(&[0; 15]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn verdicts() {
        assert!(verdict(&0i32.to_ne_bytes()).is_ok());
        assert_eq!(verdict(&(-17i32).to_ne_bytes()).unwrap_err().raw_os_error(), Some(17));
        assert!(verdict(&1i32.to_ne_bytes()).is_err());
        assert!(verdict(&[0]).is_err());
    }
}
