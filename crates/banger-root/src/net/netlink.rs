//! Requests to the kernel over netlink(7), one at a time: sockets of `netlink-sys`, messages of the
//! `netlink-packet-*` crates.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// The kernel answers at once; no answer within this time is an error.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Number of attempts to read a list that changes while it is read.
const TRIES: u32 = 16;

/// A message of one netlink protocol.
pub trait Message: NetlinkSerializable + NetlinkDeserializable {}

impl<M: NetlinkSerializable + NetlinkDeserializable> Message for M {}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected answer from netlink")
}

fn decode<M: Message>(bytes: &[u8]) -> io::Result<NetlinkPayload<M>> {
    let message = NetlinkMessage::<M>::deserialize(bytes);
    Ok(message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.payload)
}

/// A socket to the kernel.
pub struct Netlink(Socket);

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Netlink").finish()
    }
}

impl Netlink {
    /// Opens a socket of a protocol (`netlink_sys::protocols`), in the network namespace of the
    /// calling thread.
    ///
    /// # Errors
    /// socket(2), bind(2), setsockopt(2).
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self(socket))
    }

    fn send<M: Message>(&self, message: M, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(|_| ())
    }

    /// The next datagram, which holds one or more messages.
    fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            match self.0.recv_from_full() {
                Ok((bytes, _)) => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request that changes an object; `flags` are `NLM_F_CREATE` and similar.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn change<M: Message>(&self, message: M, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        match decode::<M>(&self.receive()?)? {
            // Error code 0 is the acknowledgement.
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(unexpected()),
        }
    }

    /// Gets one object.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn get<M: Message>(&self, message: M) -> io::Result<M> {
        self.send(message, 0)?;
        match decode(&self.receive()?)? {
            NetlinkPayload::InnerMessage(answer) => Ok(answer),
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Err(unexpected()),
        }
    }

    /// Checks that an object exists. The answer is not decoded, since only an error matters.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn exists<M: Message>(&self, message: M) -> io::Result<()> {
        self.send(message, 0)?;
        let answer = self.receive()?;
        let header = NetlinkBuffer::new_checked(&answer).map_err(|_| unexpected())?;
        if header.message_type() != NLMSG_ERROR {
            return Ok(());
        }
        match decode::<M>(&answer)? {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Err(unexpected()),
        }
    }

    /// Lists all objects of a type. Those that the crates cannot decode are given to `undecoded`,
    /// which decides whether the list is of use without them.
    ///
    /// # Errors
    /// The error of the kernel; `Interrupted` if the list changed each time while it was read.
    pub fn list<M: Message + Clone>(
        &self,
        message: &M,
        undecoded: impl Fn(io::Error) -> io::Result<()>,
    ) -> io::Result<Vec<M>> {
        for _ in 0..TRIES {
            self.send(message.clone(), NLM_F_DUMP)?;
            if let Some(listed) = self.listed(&undecoded)? {
                return Ok(listed);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// `None`: the list changed while it was read.
    fn listed<M: Message>(
        &self,
        undecoded: &impl Fn(io::Error) -> io::Result<()>,
    ) -> io::Result<Option<Vec<M>>> {
        let (mut found, mut changed) = (Vec::new(), false);
        loop {
            let datagram = self.receive()?;
            let mut rest = datagram.as_slice();
            if rest.is_empty() {
                return Err(unexpected());
            }
            while !rest.is_empty() {
                let header = NetlinkBuffer::new_checked(rest).map_err(|_| unexpected())?;
                changed |= header.flags() & NLM_F_DUMP_INTR != 0;
                let length = usize::try_from(header.length()).map_err(|_| unexpected())?;
                let message = rest.get(..length).ok_or_else(unexpected)?;
                match decode::<M>(message) {
                    Ok(NetlinkPayload::Done(_)) => return Ok((!changed).then_some(found)),
                    Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                    Ok(NetlinkPayload::InnerMessage(message)) => found.push(message),
                    Ok(_) => return Err(unexpected()),
                    Err(error) => undecoded(error)?,
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}
