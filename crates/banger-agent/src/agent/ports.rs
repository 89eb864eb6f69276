//! Listening sockets of the guest and who owns them, read from /proc/net and /proc/PID/fd.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use banger_agent_proto::http::{ListeningPort, Ports};

use crate::fault::{Context, Fault};

/// Most sockets reported: the answer must stay a readable size.
const MAX_PORTS: usize = 4096;

/// State of a listening TCP socket in /proc/net (`TCP_LISTEN`).
const TCP_LISTEN: &str = "0A";

/// State of a UDP socket without a peer (`TCP_CLOSE`).
const UDP_OPEN: &str = "07";

/// A socket as /proc/net shows it.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    protocol: &'static str,
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// All listening TCP and unconnected UDP sockets, in order of port.
///
/// # Errors
/// A guest without /proc.
pub fn listening() -> Result<Ports, Fault> {
    let mut sockets = Vec::new();
    let tables = [("tcp", "tcp", TCP_LISTEN), ("tcp", "tcp6", TCP_LISTEN)];
    for (protocol, table, state) in
        tables.into_iter().chain([("udp", "udp", UDP_OPEN), ("udp", "udp6", UDP_OPEN)])
    {
        let path = format!("/proc/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => sockets.extend(parse_table(protocol, state, &text)),
            // A kernel without IPv6.
            Err(_) if table.ends_with('6') => {}
            Err(error) => Err(error).context(|| format!("cannot read `{path}`"))?,
        }
    }
    sockets.truncate(MAX_PORTS);
    let owners = if sockets.is_empty() { HashMap::new() } else { socket_owners() };
    let mut ports: Vec<_> =
        sockets.iter().map(|socket| describe(socket, owners.get(&socket.inode))).collect();
    ports.sort_by(|a, b| (a.port, &a.protocol, &a.address).cmp(&(b.port, &b.protocol, &b.address)));
    ports.dedup();
    Ok(Ports { ports })
}

/// Addresses on which the guest listens for TCP connections to `port`, the loopback address instead
/// of all addresses.
pub fn listeners(port: u16) -> Vec<IpAddr> {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")));
    let sockets = tables.iter().flatten().flat_map(|text| parse_table("tcp", TCP_LISTEN, text));
    let mut found: Vec<IpAddr> = sockets
        .filter(|socket| socket.port == port)
        .map(|socket| match socket.address {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        })
        .take(MAX_PORTS)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn describe(socket: &Socket, pid: Option<&u32>) -> ListeningPort {
    let name = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    ListeningPort {
        protocol: socket.protocol.to_owned(),
        address: socket.address.to_string(),
        port: socket.port,
        pid: pid.copied(),
        process: name.map(|name| name.trim_end_matches('\n').to_owned()),
    }
}

/// Lines of proc(5) `/proc/net/tcp`: the second field is the local address, the fourth the state,
/// the tenth the inode.
fn parse_table(protocol: &'static str, state: &str, text: &str) -> Vec<Socket> {
    let parse_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote) = (fields.get(1)?, fields.get(2)?);
        let is_wanted = *fields.get(3)? == state && remote.ends_with(":0000");
        let (address, port) = parse_endpoint(local)?;
        let inode = fields.get(9)?.parse().ok()?;
        (is_wanted && port != 0).then_some(Socket { protocol, address, port, inode })
    };
    text.lines().skip(1).filter_map(parse_line).collect()
}

/// `0100007F:1F90`: the address as host-order words in hexadecimal, the port as a number.
fn parse_endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word =
        |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut octets = [0; 16];
            for (slot, byte) in octets.iter_mut().zip(words.as_flattened()) {
                *slot = *byte;
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some((address, port))
}

/// Socket inode to process. Processes come and go while this reads, so everything may fail.
fn socket_owners() -> HashMap<u64, u32> {
    let mut owners = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        for fd in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            if let Some(inode) = target.to_str().and_then(socket_inode) {
                // A socket may be shared; the first process is most likely the oldest.
                owners.entry(inode).or_insert(pid);
            }
        }
    }
    owners
}

/// `socket:[12345]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0\n\
   1: 0F02000A:0016 0202000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
   2: broken\n";
    const TCP6: &str = "header\n\
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 99 1\n\
   1: 000080FE000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 98 1\n";

    #[test]
    fn only_listeners_are_taken() {
        let sockets = parse_table("tcp", TCP_LISTEN, TCP);
        let wanted = Socket {
            protocol: "tcp",
            address: "127.0.0.1".parse().unwrap(),
            port: 8080,
            inode: 4711,
        };
        assert_eq!(sockets, [wanted]);
    }

    #[test]
    fn addresses_of_version_six() {
        let sockets = parse_table("tcp", TCP_LISTEN, TCP6);
        let shown: Vec<_> = sockets.iter().map(|s| (s.address.to_string(), s.port)).collect();
        assert_eq!(shown, [("::".to_owned(), 22), ("fe80::1".to_owned(), 80)]);
    }

    #[test]
    fn socket_links() {
        assert_eq!(socket_inode("socket:[12]"), Some(12));
        assert_eq!(socket_inode("pipe:[12]"), None);
        assert_eq!(socket_inode("socket:[x]"), None);
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = listening().unwrap().ports;
        let found = ports.iter().find(|found| found.port == port && found.protocol == "tcp");
        assert_eq!(found.unwrap().pid, Some(std::process::id()));
    }
}
