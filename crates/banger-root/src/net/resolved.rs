//! Names of VMs on this host: configures systemd-resolved to forward `.vm` to banger's DNS server,
//! through resolvectl(1).

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use banger_base::HostHint;

use super::bridge;
use super::link::Link;
use super::lock::Lock;
use super::run::{find, run};
use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::Did;

/// systemd-resolved's folder, which exists while it runs.
const RESOLVED: &str = "/run/systemd/resolve";

/// Record of the configured server and interface.
fn record(places: &Places) -> PathBuf {
    places.run.join("dns")
}

/// Whether systemd-resolved is running.
pub fn runs() -> bool {
    Path::new(RESOLVED).is_dir()
}

/// The two resolvectl commands, in order: the domain first, because a server without a domain would
/// receive all queries. An interface whose only domains are routing domains (`~`) receives no other
/// queries: `DNSDefaultRoute=` in systemd.network(5).
pub fn commands(bridge: &str, server: SocketAddrV4) -> [Vec<String>; 2] {
    let order = |words: [&str; 3]| words.map(str::to_owned).to_vec();
    [order(["domain", bridge, "~vm"]), order(["dns", bridge, &server.to_string()])]
}

fn resolvectl(args: &[&str], doing: &str) -> Result<String, RootError> {
    let program = find("resolvectl").ok_or_else(|| {
        RootError::new(Kind::HostNotReady, "there is no program `resolvectl`")
            .with_hint(HostHint::install("systemd-resolved"))
    })?;
    let output = run(&program, args, "", None)?.into_output(doing)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Whether systemd-resolved reports this server for names of VMs.
///
/// # Errors
/// Errors of resolvectl.
pub fn is_routed(bridge: &str, server: &str) -> Result<bool, RootError> {
    // One program instead of two: this runs every few seconds.
    let status = resolvectl(&["status", bridge], "ask systemd-resolved")?;
    Ok(shows(&status, server))
}

/// Whether the output of `resolvectl status` for an interface has this server and the domain.
fn shows(status: &str, server: &str) -> bool {
    let has = |label: &str, word: &str| {
        let lines = status.lines().filter_map(|line| line.split_once(": "));
        let mut of_label = lines.filter(|(name, _)| name.trim() == label);
        of_label.any(|(_, words)| words.split_whitespace().any(|other| other == word))
    };
    has("DNS Servers", server) && has("DNS Domain", "~vm")
}

/// The bridge and server that were configured last.
pub fn routed(places: &Places) -> Option<(String, String)> {
    let text = fs::read_to_string(record(places)).ok()?;
    let (index, server) = text.split_once(' ')?;
    Some((index.to_owned(), server.to_owned()))
}

fn find_bridge(places: &Places) -> Result<Option<Link>, RootError> {
    bridge::ours(&super::in_use::places(places), &super::links()?)
}

/// Whether a process listens on this UDP address, from proc_net(5).
fn listens(server: &str) -> bool {
    let Ok(address) = server.parse::<SocketAddrV4>() else { return false };
    let wanted =
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let sockets = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    sockets.lines().any(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))
}

/// Makes systemd-resolved forward `.vm`, and nothing else, to this server. Does nothing if
/// systemd-resolved is not running or there is no bridge.
///
/// # Errors
/// `Busy`: the server of another daemon is configured and still listens; two daemons would
/// overwrite each other's configuration repeatedly. Errors of resolvectl.
pub fn route_dns(places: &Places, server: SocketAddrV4) -> Result<Did, RootError> {
    if !runs() {
        return Ok(Did::WasAbsent);
    }
    let _lock = Lock::take(&places.run)?;
    let Some(link) = find_bridge(places)? else { return Ok(Did::WasAbsent) };
    let route = (link.index.to_string(), server.to_string());
    match routed(places).filter(|(index, _)| *index == route.0) {
        Some((_, other)) if other != route.1 && listens(&other) => {
            let text = format!("another daemon serves the names of VMs, at `{other}`");
            return Err(RootError::new(Kind::Busy, text).with_hint(HostHint::AwaitOtherDaemon));
        }
        Some((_, server)) if server == route.1 && is_routed(&link.name, &server)? => {
            return Ok(Did::WasThere);
        }
        _ => {}
    }
    // Recorded first, so that the configuration is reverted even if this process is killed.
    let record = record(places);
    fs::write(&record, format!("{} {}", route.0, route.1))
        .map_err(|error| RootError::on_path("write", &record, &error))?;
    for order in commands(&link.name, server) {
        let args: Vec<&str> = order.iter().map(String::as_str).collect();
        resolvectl(&args, "configure systemd-resolved for names of VMs")?;
    }
    Ok(Did::Made)
}

/// Reverts the configuration, if it names this server.
///
/// # Errors
/// Errors of resolvectl.
pub fn unroute_dns(places: &Places, server: SocketAddrV4) -> Result<Did, RootError> {
    let others = || routed(places).is_none_or(|(_, other)| other != server.to_string());
    // Checked before taking the lock, which creates a folder.
    if others() {
        return Ok(Did::WasAbsent);
    }
    let _lock = Lock::take(&places.run)?;
    if others() {
        return Ok(Did::WasAbsent);
    }
    // Without the interface, systemd-resolved has already dropped its configuration.
    if let (true, Some(link)) = (runs(), find_bridge(places)?) {
        resolvectl(&["revert", &link.name], "revert the configuration of systemd-resolved")?;
    }
    forget(places)?;
    Ok(Did::Removed)
}

/// Removes the record: the bridge is gone.
///
/// # Errors
/// unlink(2).
pub fn forget(places: &Places) -> Result<(), RootError> {
    super::forget(&record(places))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn only_the_domain_of_vms_is_routed() {
        let commands = commands("br-fc", "127.0.0.1:42069".parse().unwrap());
        let lines = commands.map(|order| order.join(" "));
        assert_eq!(lines, ["domain br-fc ~vm", "dns br-fc 127.0.0.1:42069"]);
    }

    #[test]
    fn the_status_of_an_interface() {
        let status = "Link 3 (br-fc)\n    Current Scopes: DNS\n         Protocols: -DefaultRoute\n\
                      Current DNS Server: 127.0.0.1:42069\n       DNS Servers: 127.0.0.1:42069\n\
                             DNS Domain: ~vm\n";
        assert!(shows(status, "127.0.0.1:42069"));
        assert!(!shows(status, "127.0.0.1:4206"));
        assert!(!shows(&status.replace("~vm", "vm"), "127.0.0.1:42069"));
        assert!(!shows("Link 3 (br-fc)\n    Current Scopes: none\n", "127.0.0.1:42069"));
    }

    #[test]
    fn a_listening_server_is_detected() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap().to_string();
        assert!(listens(&server));
        drop(socket);
        assert!(!listens(&server));
        assert!(!listens("nonsense"));
    }

    #[test]
    fn the_route_of_another_daemon_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { run: folder.path().to_owned(), ..Places::default() };
        fs::write(record(&places), "3 127.0.0.1:42069").unwrap();
        let (other, own) = ("127.0.0.1:4206".parse().unwrap(), "127.0.0.1:42069".parse().unwrap());
        assert_eq!(unroute_dns(&places, other).unwrap(), Did::WasAbsent);
        if !runs() {
            assert_eq!(unroute_dns(&places, own).unwrap(), Did::Removed);
            assert_eq!(unroute_dns(&places, own).unwrap(), Did::WasAbsent);
        }
    }

    #[test]
    fn without_resolved_routing_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { run: folder.path().to_owned(), ..Places::default() };
        let server = "127.0.0.1:42069".parse().unwrap();
        assert_eq!(unroute_dns(&places, server).unwrap(), Did::WasAbsent);
        if !runs() {
            assert_eq!(route_dns(&places, server).unwrap(), Did::WasAbsent);
        }
    }
}
