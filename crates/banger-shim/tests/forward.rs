//! `banger-forward` from the daemon's side, with real sockets on the loopback address.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use banger_shim::{Forward, ForwardConfig, ForwardEvent, MAX_CONNECTIONS};
use rustix::process::{Resource, Rlimit};

/// Maximum wait for any event.
const TIMEOUT: Duration = Duration::from_secs(20);

struct Program {
    child: Child,
    gate: Option<ChildStdin>,
    status: BufReader<ChildStdout>,
}

impl Program {
    /// Starts the program, which waits at its gate.
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_banger-forward"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (gate, status) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, gate, status: BufReader::new(status) }
    }

    fn tell(&mut self, line: &str) -> ForwardEvent {
        let mut gate = self.gate.take().unwrap();
        gate.write_all(line.as_bytes()).unwrap();
        drop(gate);
        let mut answer = String::new();
        self.status.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn open(&mut self, ways: &[(SocketAddr, SocketAddr)]) -> ForwardEvent {
        let forwards = ways.iter().map(|(listen, to)| Forward { listen: *listen, to: *to });
        let config = ForwardConfig { forwards: forwards.collect() };
        self.tell(&(serde_json::to_string(&config).unwrap() + "\n"))
    }

    fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < TIMEOUT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// CPU time in milliseconds: `/proc/PID/stat`, fields 14 and 15, ticks of 10 ms.
    fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap() * 10).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port on a loopback address that only this test uses; clients are on 127.0.0.1.
fn free() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 1 + high % 250, low, 7);
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// A guest, and a program that forwards to it.
struct Setup {
    guest: TcpListener,
    listen: SocketAddr,
    program: Program,
}

fn world() -> Setup {
    let guest = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free();
    let mut program = Program::start();
    let answer = program.open(&[(listen, guest.local_addr().unwrap())]);
    assert_eq!(answer, ForwardEvent::Listening);
    Setup { guest, listen, program }
}

impl Setup {
    fn dial(&self) -> TcpStream {
        let client = TcpStream::connect(self.listen).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.set_write_timeout(Some(TIMEOUT)).unwrap();
        client
    }

    fn accept(&self) -> TcpStream {
        let (guest, _) = self.guest.accept().unwrap();
        guest.set_read_timeout(Some(TIMEOUT)).unwrap();
        guest.set_write_timeout(Some(TIMEOUT)).unwrap();
        guest
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        (self.dial(), self.accept())
    }
}

fn received(mut from: &TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

fn rest(mut from: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_are_forwarded_both_ways_and_half_closes_too() {
    let world = world();
    let (mut client, mut guest) = world.pair();
    guest.write_all(b"SSH-2.0").unwrap();
    assert_eq!(received(&client, 7), b"SSH-2.0", "the guest may send first");
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&guest), b"question");
    guest.write_all(b"answer").unwrap();
    assert_eq!(
        received(&client, 6),
        b"answer",
        "a half-closed connection still forwards the other way"
    );
    drop(guest);
    assert_eq!(rest(&client), b"");
}

#[test]
fn a_slow_reader_gets_all_bytes() {
    const MUCH: usize = 16 << 20;
    let world = world();
    let (client, guest) = world.pair();
    let bytes: Vec<u8> = (0..MUCH).map(|n| ((n * 31) >> 3) as u8).collect();
    let bytes = &bytes;
    std::thread::scope(|scope| {
        for (from, to) in [(&client, &guest), (&guest, &client)] {
            scope.spawn(move || {
                let mut from = from;
                from.write_all(bytes).unwrap();
                from.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                assert!(&rest(to) == bytes);
            });
        }
    });
}

#[test]
fn a_broken_connection_is_reset() {
    let world = world();
    for breaks_at_guest in [true, false] {
        let (mut client, mut guest) = world.pair();
        client.write_all(b"x").unwrap();
        guest.write_all(b"y").unwrap();
        let (here, there) = if breaks_at_guest { (client, guest) } else { (guest, client) };
        let heard = received(&here, 1);
        assert_eq!(heard, if breaks_at_guest { b"y" } else { b"x" });
        assert_eq!(there.peek(&mut [0]).unwrap(), 1);
        // Its own byte is unread, so closing sends a reset: tcp(7).
        drop(there);
        let error = (&here).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_guest_that_does_not_listen_is_a_reset() {
    let mut world = world();
    let nowhere = free();
    let listen = free();
    let mut program = Program::start();
    assert_eq!(program.open(&[(listen, nowhere)]), ForwardEvent::Listening);
    let mut client = TcpStream::connect(listen).unwrap();
    let read = client.read(&mut [0]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // The guest listens later.
    let guest = TcpListener::bind(nowhere).unwrap();
    let mut client = TcpStream::connect(listen).unwrap();
    guest.accept().unwrap().0.write_all(b"now").unwrap();
    assert_eq!(rest(&client), b"now");
    client.flush().unwrap();
    assert!(world.program.child.try_wait().unwrap().is_none());
}

#[test]
fn clients_above_the_limit_wait() {
    let world = world();
    let before = world.program.descriptors();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(Resource::Nofile, all).unwrap();
    let mut pairs: Vec<_> = (0..MAX_CONNECTIONS).map(|_| world.pair()).collect();
    let waiting = world.dial();
    world.guest.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(world.guest.accept().is_err(), "more than the limit");
    world.guest.set_nonblocking(false).unwrap();
    for (number, (client, guest)) in pairs.iter_mut().enumerate() {
        let text = format!("{number:04}");
        client.write_all(text.as_bytes()).unwrap();
        assert_eq!(received(guest, 4), text.as_bytes());
    }
    pairs.clear();
    let mut guest = world.accept();
    guest.write_all(b"at last").unwrap();
    drop(guest);
    assert_eq!(rest(&waiting), b"at last");
    drop(waiting);
    let began = Instant::now();
    while world.program.descriptors() > before {
        assert!(began.elapsed() < TIMEOUT, "leaked descriptors");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn idle_and_stuck_connections_use_no_cpu() {
    let world = world();
    let (_client, _guest) = world.pair();
    // Client and guest have both sent everything, and neither reads: both are stuck with bytes
    // left.
    let (client, guest) = world.pair();
    client.set_nonblocking(true).unwrap();
    while (&client).write(&[7; 65536]).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    client.shutdown(Shutdown::Write).unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let before = world.program.cpu_ms();
    std::thread::sleep(Duration::from_millis(700));
    assert!(world.program.cpu_ms() - before <= 50, "busy waiting");
    assert!(!rest(&guest).is_empty());
}

#[test]
fn listens_on_all_addresses_or_none() {
    let guest = free();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (good, bad) = (free(), taken.local_addr().unwrap());
    let mut program = Program::start();
    let answer = program.open(&[(good, guest), (bad, guest)]);
    let in_use = rustix::io::Errno::ADDRINUSE.raw_os_error();
    assert_eq!(answer, ForwardEvent::Failed { listen: bad, os_error: Some(in_use) });
    assert_eq!(program.ended().code(), Some(1));
    assert!(TcpStream::connect(good).is_err(), "the first address is closed again");
}

#[test]
fn ipv4_and_ipv6_wildcards_are_two_addresses() {
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let guest = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = guest.local_addr().unwrap();
    let every = |host: &str| SocketAddr::new(host.parse().unwrap(), port);
    let mut program = Program::start();
    let answer = program.open(&[(every("0.0.0.0"), to), (every("::"), to)]);
    if let ForwardEvent::Failed { os_error, .. } = answer {
        // The host has no IPv6.
        assert_eq!(os_error, Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()));
        return;
    }
    assert_eq!(answer, ForwardEvent::Listening);
    for host in ["127.0.0.1", "::1"] {
        let Ok(client) = TcpStream::connect(every(host)) else { continue };
        guest.accept().unwrap().0.write_all(b"here").unwrap();
        assert_eq!(rest(&client), b"here", "{host}");
    }
}

#[test]
fn a_closed_gate_ends_the_program() {
    let mut program = Program::start();
    program.gate = None;
    assert!(program.ended().success());
    let mut half = Program::start();
    half.gate.as_mut().unwrap().write_all(b"{\"forwards\": []}").unwrap();
    half.gate = None;
    assert!(half.ended().success(), "an incomplete line is no configuration");
    let mut answer = String::new();
    half.status.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
}

#[test]
fn an_invalid_configuration_is_refused() {
    for line in ["{}\n", "\n", "{\"forwards\": [1]}\n", &("x".repeat(65_536))] {
        let mut program = Program::start();
        let answer = program.tell(line);
        assert!(matches!(answer, ForwardEvent::Refused { .. }), "{answer:?}");
        assert_eq!(program.ended().code(), Some(1));
    }
}

#[test]
fn only_sigterm_ends_it() {
    use rustix::process::Signal;
    let mut world = world();
    let (client, _guest) = world.pair();
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT] {
        world.program.signal(signal);
    }
    let own = rustix::process::Pid::from_child(&world.program.child);
    assert_eq!(rustix::process::getsid(Some(own)).unwrap(), own, "a session of its own");
    drop(world.pair());
    world.program.signal(Signal::TERM);
    assert_eq!(world.program.ended().signal(), Some(Signal::TERM.as_raw()));
    assert_eq!((&client).read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(world.listen).is_err());
}
