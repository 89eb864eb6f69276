//! `POST /connect`: a connection of the host to a TCP port of the guest.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use banger_agent_proto::boot::BootState;
use banger_agent_proto::ssh::NOT_LISTENING;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::events::Events;
use super::http::{Refusal, Request};
use super::ports;

/// Time limit of a single connection attempt; the port is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time that a request may wait for a port.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long a port is waited for after the guest has booted: inits other than systemd report the
/// end of the boot before their services listen.
const AFTER_BOOT: Duration = Duration::from_secs(3);
/// Time between attempts.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes copied at once.
const PIECE: usize = 64 * 1024;
/// Stack of the thread for one direction, in bytes.
const STACK: usize = 64 * 1024;

/// Connects to the port that the request names.
///
/// # Errors
/// No valid port; nothing listens on it.
pub fn open(request: &Request, events: &Events) -> Result<TcpStream, Refusal> {
    let port = number(request, "port")
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| Refusal::bad("`port` must be a number from 1 to 65535"))?;
    let wait = Duration::from_millis(number(request, "wait_ms").unwrap_or(0)).min(MAX_WAIT);
    let begin = Instant::now();
    let mut booted: Option<Instant> = None;
    loop {
        let failed = match connect(port) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if booted.is_none() && events.boot().state != BootState::Booting {
            booted = Some(Instant::now());
        }
        let hopeless = booted.is_some_and(|since| since.elapsed() >= AFTER_BOOT);
        if hopeless || begin.elapsed() >= wait {
            let text = format!("nothing listens on port {port} of the guest: {failed}");
            return Err(Refusal::new(NOT_LISTENING, text));
        }
        thread::sleep(RETRY);
    }
}

fn number(request: &Request, name: &str) -> Option<u64> {
    std::str::from_utf8(&request.parameter(name)?).ok()?.parse().ok()
}

/// Connects to the first address that listens on the port, or else to the loopback address, where
/// packet filter rules may redirect the port.
fn connect(port: u16) -> io::Result<TcpStream> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut failed = io::Error::from(io::ErrorKind::ConnectionRefused);
    for address in ports::listeners(port).into_iter().chain([loopback]) {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Copies both ways until one side ends. `early` is what the client sent right after its request.
///
/// # Errors
/// The descriptors cannot be duplicated, or there is no thread for the other direction.
pub fn relay(client: OwnedFd, early: &[u8], server: OwnedFd) -> io::Result<()> {
    for direction in [Timeout::Recv, Timeout::Send] {
        // The limits of a request do not apply to a connection, which may be idle for hours.
        set_socket_timeout(&client, direction, None)?;
    }
    let (client, mut server) = (File::from(client), File::from(server));
    server.write_all(early)?;
    let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::Builder::new().stack_size(STACK).spawn(move || {
        copy(&from_server, &to_client);
        // A half-close on vsock ends the whole connection, so this ends the other direction too.
        let _ = rustix::net::shutdown(&to_client, rustix::net::Shutdown::Both);
    })?;
    copy(&client, &server);
    let _ = rustix::net::shutdown(&server, rustix::net::Shutdown::Both);
    // It has nothing to report.
    let _ = back.join();
    Ok(())
}

/// Copies until either side ends; both ends look the same to the peers.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if to.write_all(piece.get(..length).unwrap_or_default()).is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_pass_both_ways_until_a_side_ends() {
        for client_ends in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = connect(port).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let relaying = thread::spawn(move || relay(theirs.into(), b"early ", server.into()));
            ours.write_all(b"request").unwrap();
            let mut request = [0; 13];
            accepted.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"early request");
            let data: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
            let sent = data.clone();
            let mut sender = accepted.try_clone().unwrap();
            let sending = thread::spawn(move || sender.write_all(&sent).unwrap());
            let mut back = vec![0; data.len()];
            ours.read_exact(&mut back).unwrap();
            assert!(back == data, "other bytes arrived");
            sending.join().unwrap();
            if client_ends {
                drop(ours);
                assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
            } else {
                drop(accepted);
                assert_eq!(ours.read(&mut [0]).unwrap(), 0);
            }
            relaying.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_listener_on_any_address_is_found() {
        for address in ["127.0.0.1:0", "127.0.0.7:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = match TcpListener::bind(address) {
                Err(error) if address.starts_with('[') => {
                    eprintln!("SKIPPED: {address}: no IPv6 here: {error}");
                    continue;
                }
                listener => listener.unwrap(),
            };
            let port = listener.local_addr().unwrap().port();
            connect(port).unwrap_or_else(|error| panic!("{address}: {error}"));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(connect(port).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
