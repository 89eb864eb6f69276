//! Accepts clients and carries their connections, all in one thread: epoll(7).

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use banger_shim::MAX_CONNECTIONS;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::connection::{self, Connection, Next};

/// How long a guest may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often deadlines are looked at, and how long nobody is accepted where that failed.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Events taken at once.
const EVENTS: usize = 64;
/// A silent connection is asked after this time whether it is still there, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … this often, …
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// … and given up after so many questions without an answer.
const KEEPALIVE_TRIES: u32 = 4;

/// Whether clients are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// Until a connection ends.
    Full,
    /// Until the next tick: something is scarce.
    Paused,
}

/// All listeners and connections.
pub struct Relay {
    epoll: OwnedFd,
    /// With what each leads to. Their numbers are the lowest ids.
    listeners: Vec<(TcpListener, SocketAddr)>,
    accepting: Accepting,
    connections: HashMap<u64, Connection>,
    next: u64,
}

impl Relay {
    /// Over listeners that do not block.
    ///
    /// # Errors
    /// epoll_create1(2), epoll_ctl(2).
    pub fn new(listeners: Vec<(TcpListener, SocketAddr)>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let next = listeners.len() as u64;
        let connections = HashMap::new();
        let relay = Self { epoll, listeners, accepting: Accepting::Yes, connections, next };
        relay.watch_listeners()?;
        Ok(relay)
    }

    fn watch_listeners(&self) -> io::Result<()> {
        for (id, (listener, _)) in self.listeners.iter().enumerate() {
            let data = EventData::new_u64(id as u64);
            epoll::add(&self.epoll, listener, data, EventFlags::IN)?;
        }
        Ok(())
    }

    fn accept_no_more(&mut self, why: Accepting) -> io::Result<()> {
        if self.accepting == Accepting::Yes {
            for (listener, _) in &self.listeners {
                epoll::delete(&self.epoll, listener)?;
            }
        }
        self.accepting = why;
        Ok(())
    }

    fn accept_again(&mut self) -> io::Result<()> {
        if self.accepting != Accepting::Yes && self.connections.len() < MAX_CONNECTIONS {
            self.accepting = Accepting::Yes;
            self.watch_listeners()?;
        }
        Ok(())
    }

    /// Carries until the process is ended.
    ///
    /// # Errors
    /// epoll_wait(2), epoll_ctl(2).
    pub fn run(mut self) -> io::Result<()> {
        let empty = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [empty; EVENTS];
        let mut looked = Instant::now();
        loop {
            let ticking = self.accepting == Accepting::Paused
                || self.connections.values().any(|c| c.deadline().is_some());
            let count = match epoll::wait(&self.epoll, &mut events, ticking.then_some(&TICK)) {
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                let id = event.data.u64();
                match usize::try_from(id).ok().filter(|place| *place < self.listeners.len()) {
                    Some(place) => self.accept(place)?,
                    None => self.turn(id)?,
                }
            }
            let now = Instant::now();
            if ticking && now.duration_since(looked) >= Duration::from_secs(1) {
                looked = now;
                self.give_up(now);
                self.accept_again()?;
            }
        }
    }

    /// Takes one client of a listener.
    fn accept(&mut self, place: usize) -> io::Result<()> {
        // Events of one batch may come after the last place was taken.
        if self.accepting != Accepting::Yes {
            return Ok(());
        }
        let (listener, to) = &self.listeners[place];
        // A client that has left already, or whose network failed (accept(2)), is nobody's concern.
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if is_scarce(&error) => return self.accept_no_more(Accepting::Paused),
            Err(_) => return Ok(()),
        };
        let guest = match prepare(&client).and_then(|()| dial(*to)) {
            Ok(guest) => guest,
            Err(error) => {
                connection::reset(&client);
                return match is_scarce(&error) {
                    true => self.accept_no_more(Accepting::Paused),
                    false => Ok(()),
                };
            }
        };
        let id = self.next;
        self.next += 1;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        self.connections.insert(id, Connection::new(client, guest, deadline));
        if self.connections.len() >= MAX_CONNECTIONS {
            self.accept_no_more(Accepting::Full)?;
        }
        self.turn(id)
    }

    /// Gives a connection its turn; one that ended earlier in this batch has none.
    fn turn(&mut self, id: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let done = match connection.advance() {
            Ok(Next::GoOn) => return connection.watch(&self.epoll, id),
            done => done,
        };
        let over = self.connections.remove(&id);
        match (over, done) {
            (Some(connection), Err(_)) => connection.reset(),
            (closed, _) => drop(closed),
        }
        match self.accepting {
            Accepting::Full => self.accept_again(),
            Accepting::Yes | Accepting::Paused => Ok(()),
        }
    }

    /// Ends what the guest has not answered in time.
    fn give_up(&mut self, now: Instant) {
        let late = |c: &Connection| c.deadline().is_some_and(|deadline| deadline <= now);
        let gone: Vec<Connection> =
            self.connections.extract_if(|_, c| late(c)).map(|(_, c)| c).collect();
        gone.into_iter().for_each(Connection::reset);
    }
}

/// Whether the host has run out of something, so that it is better to wait a little.
fn is_scarce(error: &io::Error) -> bool {
    let known = Errno::from_io_error(error);
    matches!(known, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// A socket that never waits, sends at once, and notices when its other end has vanished: tcp(7).
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_TRIES)?;
    Ok(())
}

/// Begins to connect to the guest: connect(2), EINPROGRESS.
fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = TcpStream::from(socket);
    prepare(&socket)?;
    Ok(socket)
}
