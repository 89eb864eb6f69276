//! The DNS servers of the host: resolv.conf(5).

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

/// File of systemd-resolved with the real servers; `/etc/resolv.conf` then contains its stub
/// address.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const PLAIN: &str = "/etc/resolv.conf";
/// Maximum size of the file in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// Maximum number of servers: MAXNS of resolv.conf(5).
const MAX_SERVERS: usize = 3;

/// The servers that guests can reach. `is_local` tells the host's own addresses.
pub fn upstream(is_local: impl Fn(Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
    let file = File::open(RESOLVED).or_else(|_| File::open(Path::new(PLAIN)));
    let mut text = Vec::new();
    // A host without the file has no servers.
    let _ = file.map(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    parse(&String::from_utf8_lossy(&text), is_local)
}

fn parse(text: &str, is_local: impl Fn(Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let server = match (words.next(), words.next()) {
            (Some("nameserver"), Some(server)) => server.parse::<Ipv4Addr>().ok(),
            _ => None,
        };
        let useful = |server: &Ipv4Addr| {
            let nowhere = server.is_loopback() || server.is_unspecified();
            !nowhere && !is_local(*server) && !found.contains(server)
        };
        found.extend(server.filter(useful));
    }
    found.truncate(MAX_SERVERS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_servers_are_left_out() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver\t10.0.0.1 # a\n\
            nameserver fe80::1%eth0\nnameserver 10.0.0.1\n nameserver 192.168.1.7\n\
            options edns0\nnameserver 0.0.0.0\nnameserverx 1.1.1.1\nnameserver 9.9.9.9\n\
            nameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let own = Ipv4Addr::new(192, 168, 1, 7);
        let found = parse(text, |address| address == own);
        assert_eq!(
            found,
            ["10.0.0.1", "9.9.9.9", "10.0.0.3"].map(|a| a.parse::<Ipv4Addr>().unwrap())
        );
        assert!(parse("", |_| false).is_empty());
    }
}
