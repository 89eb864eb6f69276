//! One client with its connection to the guest: two flows of bytes that end one by one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::sockopt;

/// Bytes on their way in one direction.
const BUFFER: usize = 32 * 1024;
/// The end of a connection that the client is at.
pub const CLIENT: usize = 0;
/// The end that the guest is at.
pub const GUEST: usize = 1;

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does.
    GoOn,
    /// Both sides have said everything.
    Over,
}

/// Where bytes of a flow come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    /// It has said everything.
    Ended,
}

/// Where bytes of a flow go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Open,
    /// It was told that nothing more comes.
    Shut,
    /// It takes nothing any more.
    Broken,
}

/// Bytes from one end to the other.
struct Flow {
    buffer: Box<[u8]>,
    /// What is in the buffer and not yet written: from here …
    start: usize,
    /// … to here.
    end: usize,
    source: Source,
    sink: Sink,
}

impl Flow {
    fn new() -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { buffer, start: 0, end: 0, source: Source::Open, sink: Sink::Open }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn is_drained(&self) -> bool {
        self.source == Source::Ended && self.is_empty()
    }

    /// Reads once where there is room, and writes once what there is: other connections want their
    /// turn too. An error is one of the source.
    fn pump(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        if self.is_empty() && self.source == Source::Open {
            match later(from.read(&mut self.buffer))? {
                Some(0) => self.source = Source::Ended,
                Some(count) => (self.start, self.end) = (0, count),
                None => {}
            }
        }
        if self.sink != Sink::Open {
            // Nobody takes it: read on, so that the end of the source is seen.
            self.end = self.start;
        }
        if !self.is_empty() {
            match later(to.write(&self.buffer[self.start..self.end])) {
                Ok(count) => self.start += count.unwrap_or(0),
                // What the sink has said before it broke is still to be carried the other way.
                Err(_) => (self.sink, self.end) = (Sink::Broken, self.start),
            }
        }
        Ok(())
    }
}

/// `None` where a descriptor is not ready.
fn later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A client and its guest.
pub struct Connection {
    ends: [TcpStream; 2],
    /// From the client, from the guest.
    flows: [Flow; 2],
    /// What each end is watched for; nothing means that it is not watched.
    watched: [EventFlags; 2],
    /// Until when the guest may answer, while it has not.
    deadline: Option<Instant>,
}

impl Connection {
    /// A client, and a connection to the guest that is being made.
    pub fn new(client: TcpStream, guest: TcpStream, deadline: Instant) -> Self {
        Self {
            ends: [client, guest],
            flows: [Flow::new(), Flow::new()],
            watched: [EventFlags::empty(); 2],
            deadline: Some(deadline),
        }
    }

    /// When to give up waiting for the guest, if it is still waited for.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does what can be done without waiting.
    ///
    /// # Errors
    /// One of the ends is gone in the middle: the other is to be told by [`Self::reset`].
    pub fn advance(&mut self) -> io::Result<Next> {
        if self.deadline.is_some() {
            if let Some(error) = self.ends[GUEST].take_error()? {
                return Err(error);
            }
            if self.ends[GUEST].peer_addr().is_err() {
                return Ok(Next::GoOn);
            }
            self.deadline = None;
        }
        for from in [CLIENT, GUEST] {
            self.flows[from].pump(&self.ends[from], &self.ends[1 - from])?;
        }
        let is_broken = |flow: &Flow| flow.sink == Sink::Broken;
        if self.flows.iter().any(is_broken) {
            // A clean end would say that the rest had arrived.
            let nothing_left = self.flows.iter().all(|flow| is_broken(flow) || flow.is_drained());
            return if nothing_left { Err(ErrorKind::BrokenPipe.into()) } else { Ok(Next::GoOn) };
        }
        for from in [CLIENT, GUEST] {
            if self.flows[from].is_drained() && self.flows[from].sink == Sink::Open {
                self.ends[1 - from].shutdown(Shutdown::Write)?;
                self.flows[from].sink = Sink::Shut;
            }
        }
        let over = self.flows.iter().all(|flow| flow.sink == Sink::Shut);
        Ok(if over { Next::Over } else { Next::GoOn })
    }

    /// Has epoll(7) watch both ends for what they are waited for. An end that is waited for nothing
    /// is not watched at all: it would be reported for ever once it has hung up.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn watch(&mut self, epoll: &OwnedFd, id: u64) -> io::Result<()> {
        for end in [CLIENT, GUEST] {
            let (wanted, watched) = (self.wanted(end), self.watched[end]);
            if wanted == watched {
                continue;
            }
            let (stream, data) = (&self.ends[end], EventData::new_u64(id));
            if wanted.is_empty() {
                epoll::delete(epoll, stream)?;
            } else if watched.is_empty() {
                epoll::add(epoll, stream, data, wanted)?;
            } else {
                epoll::modify(epoll, stream, data, wanted)?;
            }
            self.watched[end] = wanted;
        }
        Ok(())
    }

    fn wanted(&self, end: usize) -> EventFlags {
        if self.deadline.is_some() {
            return if end == GUEST { EventFlags::OUT } else { EventFlags::empty() };
        }
        let mut wanted = EventFlags::empty();
        let (from, to) = (&self.flows[end], &self.flows[1 - end]);
        if from.source == Source::Open && from.is_empty() {
            wanted |= EventFlags::IN;
        }
        if !to.is_empty() {
            wanted |= EventFlags::OUT;
        }
        wanted
    }

    /// Ends it so that nobody takes it for complete.
    pub fn reset(self) {
        self.ends.iter().for_each(reset);
    }
}

/// Has the end of a socket be a reset: socket(7), SO_LINGER of zero.
pub fn reset(socket: &TcpStream) {
    // Where that is refused it is closed without it.
    let _ = sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
}
