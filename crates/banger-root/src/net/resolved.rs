//! Names of VMs on this host: systemd-resolved asks our server for them, resolvectl(1).

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use super::bridge;
use super::link::Link;
use super::lock::Lock;
use super::run::{find, run};
use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::words::Did;

/// Resolved's own folder: there while it runs.
const RESOLVED: &str = "/run/systemd/resolve";

/// What it was told, for which interface.
fn record(places: &Places) -> PathBuf {
    places.run.join("dns")
}

/// Whether systemd-resolved runs here.
pub fn runs() -> bool {
    Path::new(RESOLVED).is_dir()
}

/// The two orders, in this order: without the domain the server would be asked for everything. An
/// interface whose only domains are for routing (`~`) is asked for nothing else: `DNSDefaultRoute=`
/// in systemd.network(5).
pub fn orders(bridge: &str, server: SocketAddrV4) -> [Vec<String>; 2] {
    let order = |words: [&str; 3]| words.map(str::to_owned).to_vec();
    [order(["domain", bridge, "~vm"]), order(["dns", bridge, &server.to_string()])]
}

fn resolvectl(args: &[&str], doing: &str) -> Result<String, RootError> {
    let program = find("resolvectl").ok_or_else(|| {
        RootError::new(Kind::HostNotReady, "there is no program `resolvectl`")
            .with_hint("install systemd-resolved: apt-get install systemd-resolved")
    })?;
    let output = run(&program, args, "", None)?.good(doing)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Whether resolved asks this server for names of VMs, as far as it says.
///
/// # Errors
/// Those of running resolvectl.
pub fn is_routed(bridge: &str, server: &str) -> Result<bool, RootError> {
    // One program instead of two: this is asked every few seconds.
    let status = resolvectl(&["status", bridge], "ask systemd-resolved")?;
    Ok(shows(&status, server))
}

/// Whether what `resolvectl status` shows of an interface has this server and our domain.
fn shows(status: &str, server: &str) -> bool {
    let has = |label: &str, word: &str| {
        let lines = status.lines().filter_map(|line| line.split_once(": "));
        let mut of_label = lines.filter(|(name, _)| name.trim() == label);
        of_label.any(|(_, words)| words.split_whitespace().any(|other| other == word))
    };
    has("DNS Servers", server) && has("DNS Domain", "~vm")
}

/// The server that was routed to last, and for which bridge.
pub fn routed(places: &Places) -> Option<(String, String)> {
    let text = fs::read_to_string(record(places)).ok()?;
    let (index, server) = text.split_once(' ')?;
    Some((index.to_owned(), server.to_owned()))
}

fn find_bridge(places: &Places) -> Result<Option<Link>, RootError> {
    bridge::ours(&super::in_use::places(places), &super::links()?)
}

/// Whether a socket has this very address, proc_net(5): a list of them tells without taking part.
fn listens(server: &str) -> bool {
    let Ok(address) = server.parse::<SocketAddrV4>() else { return false };
    let wanted =
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let sockets = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    sockets.lines().any(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))
}

/// Has names that end in `.vm` asked of this server, and nothing else. Where resolved does not run,
/// or there is no bridge, nothing happens.
///
/// # Errors
/// `Busy`: the server of another daemon is asked that still listens; two would take the names from
/// each other again and again. resolvectl's complaint.
pub fn route_dns(places: &Places, server: SocketAddrV4) -> Result<Did, RootError> {
    if !runs() {
        return Ok(Did::WasAbsent);
    }
    let _lock = Lock::take(&places.run)?;
    let Some(link) = find_bridge(places)? else { return Ok(Did::WasAbsent) };
    let said = (link.index.to_string(), server.to_string());
    match routed(places).filter(|(index, _)| *index == said.0) {
        Some((_, other)) if other != said.1 && listens(&other) => {
            let text = format!("names of VMs are asked of another daemon, at `{other}`");
            return Err(RootError::new(Kind::Busy, text)
                .with_hint("they are asked of this one when that ends or has no VM any more"));
        }
        Some((_, told)) if told == said.1 && is_routed(&link.name, &told)? => {
            return Ok(Did::WasThere);
        }
        _ => {}
    }
    // First, so that it is taken back whatever is said before somebody is killed.
    let record = record(places);
    fs::write(&record, format!("{} {}", said.0, said.1))
        .map_err(|error| RootError::on_path("write", &record, &error))?;
    for order in orders(&link.name, server) {
        let args: Vec<&str> = order.iter().map(String::as_str).collect();
        resolvectl(&args, "have names of VMs asked of banger by systemd-resolved")?;
    }
    Ok(Did::Made)
}

/// Takes that back, if it is this server that is asked.
///
/// # Errors
/// resolvectl's complaint.
pub fn unroute_dns(places: &Places, server: SocketAddrV4) -> Result<Did, RootError> {
    let others = || routed(places).is_none_or(|(_, other)| other != server.to_string());
    // Before the lock, which makes a folder where nothing was done yet.
    if others() {
        return Ok(Did::WasAbsent);
    }
    let _lock = Lock::take(&places.run)?;
    if others() {
        return Ok(Did::WasAbsent);
    }
    // With its interface resolved forgets what it was told for it.
    if let (true, Some(link)) = (runs(), find_bridge(places)?) {
        resolvectl(&["revert", &link.name], "take back what systemd-resolved was told")?;
    }
    forget(places)?;
    Ok(Did::Removed)
}

/// Forgets what was told: the bridge is gone.
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
    fn only_names_of_vms_are_asked_of_us() {
        let orders = orders("br-fc", "127.0.0.1:42069".parse().unwrap());
        let lines = orders.map(|order| order.join(" "));
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
    fn who_still_listens_is_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap().to_string();
        assert!(listens(&server));
        drop(socket);
        assert!(!listens(&server));
        assert!(!listens("nonsense"));
    }

    #[test]
    fn what_another_daemon_had_routed_is_left() {
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
    fn without_resolved_nothing_happens() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { run: folder.path().to_owned(), ..Places::default() };
        let server = "127.0.0.1:42069".parse().unwrap();
        assert_eq!(unroute_dns(&places, server).unwrap(), Did::WasAbsent);
        if !runs() {
            assert_eq!(route_dns(&places, server).unwrap(), Did::WasAbsent);
        }
    }
}
