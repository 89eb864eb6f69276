//! What `doctor` says of the network: each finding with what was seen and what to do. Changes
//! nothing, and takes no lock.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use ipnet::Ipv4Net;

use super::link::{Link, Route};
use super::nft::{Nft, TableFamily};
use super::state::right;
use super::subnet::{self, GuestNetwork};
use super::{Leases, bridge, docker, forwarding, resolved, resolvers, run};
use crate::error::RootError;
use crate::places::Places;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A name that stays: `network_nft`, `network_subnet`…
    pub code: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do, where something is.
    pub hint: Option<String>,
}

impl Finding {
    fn good(code: &str, seen: impl Into<String>) -> Self {
        Self { code: code.to_owned(), ok: true, seen: seen.into(), hint: None }
    }

    fn bad(code: &str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), ok: false, seen: seen.into(), hint: Some(hint.into()) }
    }

    fn failed(code: &str, error: &RootError) -> Self {
        let causes = error.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
        let hint = error.hint.clone();
        Self { code: code.to_owned(), ok: false, seen: error.message.clone() + &causes, hint }
    }
}

/// What there is, read once.
struct Facts<'a> {
    places: &'a Places,
    subnet: Ipv4Net,
    leases: Leases,
    links: Vec<Link>,
    routes: Vec<Route>,
    bridge: Result<Option<Link>, RootError>,
}

impl<'a> Facts<'a> {
    fn gather(places: &'a Places) -> Result<Self, RootError> {
        let subnet = subnet::checked(places)?;
        let links = super::links()?;
        let failed = |error| RootError::system("list interfaces and routes", &error);
        Ok(Self {
            places,
            subnet,
            leases: Leases::read(places.leases(), subnet)?,
            bridge: bridge::find(places, &links),
            routes: links.routes().map_err(failed)?,
            links: links.all().map_err(failed)?,
        })
    }

    fn bridge_index(&self) -> Option<u32> {
        self.bridge.as_ref().ok().and_then(Option::as_ref).map(|link| link.index)
    }
}

/// Looks at everything. What cannot be looked at is a finding too.
pub fn findings(places: &Places) -> Vec<Finding> {
    let places = &super::in_use::places(places);
    let facts = match Facts::gather(places) {
        Ok(facts) => facts,
        Err(error) => return vec![Finding::failed("network_subnet", &error)],
    };
    let nft = Nft::open();
    let mut found = vec![
        nft_there(nft.as_ref()),
        tun_there(),
        subnet_free(&facts),
        uplink(&facts),
        forwards(&facts),
        resolvers_there(&facts),
        bridge_right(&facts),
        taps(&facts),
    ];
    if let Ok(nft) = &nft {
        found.push(rules_right(&facts, nft));
        found.extend(docker_right(&facts, nft));
        found.extend(firewall(&facts, nft));
    }
    found.extend(names_routed(&facts));
    found
}

fn nft_there(nft: Result<&Nft, &RootError>) -> Finding {
    const CODE: &str = "network_nft";
    match nft.map(Nft::generation) {
        Err(error) => return Finding::failed(CODE, error),
        Ok(Err(error)) => return Finding::failed(CODE, &error),
        Ok(Ok(_)) => {}
    }
    match run::find("nft") {
        Some(path) => Finding::good(CODE, format!("`{}`", path.display())),
        None => {
            let hint = "install nftables: apt-get install nftables";
            Finding::bad(CODE, "there is no program `nft`", hint)
        }
    }
}

fn tun_there() -> Finding {
    if Path::new("/dev/net/tun").exists() {
        Finding::good("network_tun", "`/dev/net/tun`")
    } else {
        Finding::bad("network_tun", "there is no `/dev/net/tun`", "load its module: modprobe tun")
    }
}

fn subnet_free(facts: &Facts<'_>) -> Finding {
    const CODE: &str = "network_subnet";
    let Some(route) = bridge::overlap(facts.subnet, facts.bridge_index(), &facts.routes) else {
        return Finding::good(CODE, format!("`{}` is free", facts.subnet));
    };
    let name = facts.links.iter().find(|link| link.index == route.link);
    let name = name.map_or("none", |link| &link.name);
    Finding::bad(
        CODE,
        format!("`{}` overlaps with `{}` of `{name}`", facts.subnet, route.to),
        super::subnet::HINT,
    )
}

fn uplink(facts: &Facts<'_>) -> Finding {
    let index = facts.bridge_index().unwrap_or_default();
    let defaults = |link: &&Link| {
        link.index != index
            && facts
                .routes
                .iter()
                .any(|route| route.to.prefix_len() == 0 && route.link == link.index)
    };
    let names: Vec<_> = facts.links.iter().filter(defaults).map(|link| &*link.name).collect();
    if names.is_empty() {
        let hint = "VMs reach only what the host reaches: connect it, see `ip route`";
        return Finding::bad("network_uplink", "the host has no default route", hint);
    }
    Finding::good("network_uplink", format!("`{}`", names.join("`, `")))
}

fn forwards(facts: &Facts<'_>) -> Finding {
    const CODE: &str = "network_forwarding";
    match forwarding::is_on() {
        Err(error) => Finding::failed(CODE, &error),
        Ok(true) if forwarding::is_ours(facts.places) => {
            Finding::good(CODE, "`net.ipv4.ip_forward` is 1, set by banger while VMs need it")
        }
        Ok(true) => Finding::good(CODE, "`net.ipv4.ip_forward` is 1"),
        Ok(false) if facts.leases.any_nat() => Finding::bad(
            CODE,
            "`net.ipv4.ip_forward` was set to 0 while VMs need it",
            "banger sets it again in a moment; look for who sets it in `/etc/sysctl.d`",
        ),
        Ok(false) => Finding::good(CODE, "`net.ipv4.ip_forward` is 0, set when a VM needs it"),
    }
}

fn resolvers_there(facts: &Facts<'_>) -> Finding {
    const CODE: &str = "network_resolvers";
    let local = |server| facts.routes.iter().any(|route| route.is_own_address(server));
    let servers: Vec<_> = resolvers::upstream(local).iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        let seen = "the host names no server of names that VMs can reach";
        let hint = "add an IPv4 `nameserver` that is not the host itself to `/etc/resolv.conf`";
        return Finding::bad(CODE, seen, hint);
    }
    Finding::good(CODE, format!("`{}`", servers.join("`, `")))
}

fn bridge_right(facts: &Facts<'_>) -> Finding {
    const CODE: &str = "network_bridge";
    let name = &facts.places.bridge;
    let again = "banger mends it in a moment; look for who changes it, often NetworkManager";
    match &facts.bridge {
        Err(error) => Finding::failed(CODE, error),
        Ok(None) if facts.leases.is_empty() => {
            Finding::good(CODE, format!("`{name}` is made with the first VM"))
        }
        Ok(None) => Finding::bad(CODE, format!("`{name}` is gone while VMs use it"), again),
        Ok(Some(link)) if !link.up => Finding::bad(CODE, format!("`{name}` is down"), again),
        Ok(Some(link)) if !bridge::has_address(link, facts.subnet, &facts.routes) => {
            let gateway = facts.subnet.gateway();
            Finding::bad(CODE, format!("`{name}` has lost its address `{gateway}`"), again)
        }
        Ok(Some(_)) => Finding::good(CODE, format!("`{name}` with `{}`", facts.subnet.gateway())),
    }
}

fn taps(facts: &Facts<'_>) -> Finding {
    let leased = |name: &str| facts.leases.iter().any(|(_, held)| held.vm.tap_name() == name);
    let forgotten =
        |link: &&Link| link.kind == "tun" && link.name.starts_with("fc-") && !leased(&link.name);
    let names: Vec<_> = facts.links.iter().filter(forgotten).map(|link| &*link.name).collect();
    let vms = facts.leases.iter().count();
    if names.is_empty() {
        return Finding::good("network_taps", format!("{vms} in use"));
    }
    let seen = format!("`{}` belong to no VM", names.join("`, `"));
    Finding::bad("network_taps", seen, "remove each: ip link delete NAME")
}

fn rules_right(facts: &Facts<'_>, nft: &Nft) -> Finding {
    const CODE: &str = "network_rules";
    if facts.leases.is_empty() {
        return Finding::good(CODE, "loaded with the first VM");
    }
    match right(facts.places, nft) {
        Err(error) => Finding::failed(CODE, &error),
        Ok(Some(true)) => Finding::good(CODE, "as loaded"),
        Ok(Some(false)) => Finding::bad(
            CODE,
            "somebody flushed or changed banger's nftables rules",
            "banger puts them back in a moment; keep `flush ruleset` out of what runs later",
        ),
        Ok(None) => Finding::good(CODE, "there; other rules changed since they were loaded"),
    }
}

/// Nothing where Docker is not.
fn docker_right(facts: &Facts<'_>, nft: &Nft) -> Option<Finding> {
    const CODE: &str = "network_docker";
    match nft.has_chain(TableFamily::IPv4, "filter", "DOCKER-USER") {
        Err(error) => return Some(Finding::failed(CODE, &error)),
        Ok(true) if !facts.leases.any_nat() => {
            return Some(Finding::good(CODE, "two rules go to `DOCKER-USER` with the first VM"));
        }
        Ok(true) => {
            return Some(match docker::count() {
                Err(error) => Finding::failed(CODE, &error),
                Ok(0) => Finding::bad(
                    CODE,
                    "Docker drops what VMs send: banger's rules in `DOCKER-USER` are gone",
                    "banger puts them back in a moment",
                ),
                Ok(_) => Finding::good(CODE, "rules in `DOCKER-USER` let VMs through"),
            });
        }
        Ok(false) => {}
    }
    // Tables of the older tool are none of nftables', and neither can be changed with nft.
    let legacy = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    let docker = facts.links.iter().any(|link| link.name == "docker0");
    (docker && legacy.lines().any(|table| table == "filter")).then(|| {
        let uplinks =
            docker::uplinks(facts.bridge_index().unwrap_or_default(), &facts.links, &facts.routes);
        let uplink = uplinks.first().map_or("UPLINK", |name| name);
        let bridge = &facts.places.bridge;
        Finding::bad(
            CODE,
            "Docker uses iptables-legacy and may drop what VMs send",
            format!(
                "iptables-legacy -I DOCKER-USER -i {bridge} -o {uplink} -j ACCEPT; \
                 iptables-legacy -I DOCKER-USER -o {bridge} -j ACCEPT; or have Docker use \
                 nftables: update-alternatives --set iptables /usr/sbin/iptables-nft"
            ),
        )
    })
}

/// Other programs that drop what is forwarded. Whether they let VMs through is written in their own
/// ways, so that is only said.
fn firewall(facts: &Facts<'_>, nft: &Nft) -> Option<Finding> {
    let bridge = &facts.places.bridge;
    let there = |of, table: &str, chain: &str| nft.has_chain(of, table, chain).unwrap_or(false);
    let (name, hint) = if there(TableFamily::Inet, "firewalld", "filter_FORWARD") {
        let zone = "firewall-cmd --permanent --zone=trusted --add-interface";
        ("firewalld", format!("if VMs reach nothing: {zone}={bridge}; firewall-cmd --reload"))
    } else if there(TableFamily::IPv4, "filter", "ufw-user-forward") {
        ("ufw", format!("if VMs reach nothing: ufw route allow in on {bridge}"))
    } else {
        return None;
    };
    let seen = format!("`{name}` is in use and has its own say in what is forwarded");
    Some(Finding { hint: Some(hint), ..Finding::good("network_firewall", seen) })
}

/// Nothing where there is no bridge to route names on.
fn names_routed(facts: &Facts<'_>) -> Option<Finding> {
    const CODE: &str = "network_dns";
    let bridge = facts.bridge.as_ref().ok()?.as_ref()?;
    if !resolved::runs() {
        let seen = "systemd-resolved does not run: names of VMs are not asked of banger";
        let hint = "have your resolver ask the address that `banger daemon status` shows for the \
                    domain `vm`; docs/network.md says how for dnsmasq and NetworkManager";
        return Some(Finding::bad(CODE, seen, hint));
    }
    let told =
        resolved::routed(facts.places).filter(|(index, _)| *index == bridge.index.to_string());
    let Some((_, server)) = told else {
        let seen = "systemd-resolved was not told of names of VMs";
        return Some(Finding::bad(CODE, seen, "see the daemon's log: banger daemon logs"));
    };
    Some(match resolved::is_routed(&bridge.name, &server) {
        Err(error) => Finding::failed(CODE, &error),
        Ok(true) => Finding::good(CODE, format!("systemd-resolved asks `{server}` for `vm`")),
        Ok(false) => Finding::bad(
            CODE,
            "systemd-resolved forgot what it was told of names of VMs",
            "banger tells it again within seconds while it runs",
        ),
    })
}
