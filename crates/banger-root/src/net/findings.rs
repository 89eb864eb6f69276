//! The network findings of `banger doctor`, each with observation and advice. Changes nothing and
//! takes no lock.

use std::fs;
use std::path::Path;

use banger_base::HostHint;
use banger_base::hint::{Firewall, Shared};
use ipnet::Ipv4Net;

use super::link::{Link, Route};
use super::nft::{Nft, TableFamily};
use super::state::is_current;
use super::subnet::{self, GuestNetwork};
use super::{Leases, bridge, docker, forwarding, resolved, resolvers, run};
use crate::error::{Hints, RootError};
use crate::places::Places;
use crate::protocol::Finding;

impl Finding {
    fn good(code: &str, seen: impl Into<String>) -> Self {
        Self { code: code.to_owned(), ok: true, seen: seen.into(), hints: Hints::default() }
    }

    fn bad(code: &str, seen: impl Into<String>, hint: HostHint) -> Self {
        Self { code: code.to_owned(), ok: false, seen: seen.into(), hints: Hints(vec![hint]) }
    }

    fn failed(code: &str, error: &RootError) -> Self {
        let causes = error.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
        let (seen, hints) = (error.message.clone() + &causes, error.hints.clone());
        Self { code: code.to_owned(), ok: false, seen, hints }
    }
}

/// State of the host, read once.
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

/// Runs all checks. A check that cannot run is a failed finding.
pub fn findings(places: &Places) -> Vec<Finding> {
    let places = &super::in_use::places(places);
    let facts = match Facts::gather(places) {
        Ok(facts) => facts,
        Err(error) => return vec![Finding::failed("network_subnet", &error)],
    };
    let nft = Nft::open();
    let mut found = vec![
        nft_installed(nft.as_ref()),
        tun_exists(),
        subnet_free(&facts),
        uplink(&facts),
        forwarding_state(&facts),
        resolvers_exist(&facts),
        bridge_state(&facts),
        taps(&facts),
    ];
    if let Ok(nft) = &nft {
        found.push(rules_state(&facts, nft));
        found.extend(docker_rules(&facts, nft));
        found.extend(firewall(&facts, nft));
    }
    found.extend(names_routed(&facts));
    found
}

fn nft_installed(nft: Result<&Nft, &RootError>) -> Finding {
    const CODE: &str = "network_nft";
    match nft.map(Nft::generation) {
        Err(error) => return Finding::failed(CODE, error),
        Ok(Err(error)) => return Finding::failed(CODE, &error),
        Ok(Ok(_)) => {}
    }
    match run::find("nft") {
        Some(path) => Finding::good(CODE, format!("`{}`", path.display())),
        None => Finding::bad(CODE, "there is no program `nft`", HostHint::install("nftables")),
    }
}

fn tun_exists() -> Finding {
    if Path::new("/dev/net/tun").exists() {
        Finding::good("network_tun", "`/dev/net/tun`")
    } else {
        Finding::bad("network_tun", "there is no `/dev/net/tun`", HostHint::load("tun"))
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
        HostHint::ChooseSubnet,
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
        let seen = "the host has no default route";
        return Finding::bad("network_uplink", seen, HostHint::ConnectHost);
    }
    Finding::good("network_uplink", format!("`{}`", names.join("`, `")))
}

fn forwarding_state(facts: &Facts<'_>) -> Finding {
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
            HostHint::FindChange { object: Shared::Forwarding },
        ),
        Ok(false) => Finding::good(CODE, "`net.ipv4.ip_forward` is 0, set when a VM needs it"),
    }
}

fn resolvers_exist(facts: &Facts<'_>) -> Finding {
    const CODE: &str = "network_resolvers";
    let local = |server| facts.routes.iter().any(|route| route.is_own_address(server));
    let servers: Vec<_> = resolvers::upstream(local).iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        let seen = "the host has no DNS server that VMs can reach";
        return Finding::bad(CODE, seen, HostHint::AddNameserver);
    }
    Finding::good(CODE, format!("`{}`", servers.join("`, `")))
}

fn bridge_state(facts: &Facts<'_>) -> Finding {
    const CODE: &str = "network_bridge";
    let name = &facts.places.bridge;
    let again = HostHint::FindChange { object: Shared::Bridge };
    match &facts.bridge {
        Err(error) => Finding::failed(CODE, error),
        Ok(None) if facts.leases.is_empty() => {
            Finding::good(CODE, format!("`{name}` is created with the first VM"))
        }
        Ok(None) => Finding::bad(CODE, format!("`{name}` is missing while VMs use it"), again),
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
    let names = names.into_iter().map(str::to_owned).collect();
    Finding::bad("network_taps", seen, HostHint::DeleteInterfaces { names })
}

fn rules_state(facts: &Facts<'_>, nft: &Nft) -> Finding {
    const CODE: &str = "network_rules";
    if facts.leases.is_empty() {
        return Finding::good(CODE, "loaded with the first VM");
    }
    match is_current(facts.places, nft) {
        Err(error) => Finding::failed(CODE, &error),
        Ok(Some(true)) => Finding::good(CODE, "unchanged"),
        Ok(Some(false)) => Finding::bad(
            CODE,
            "another program flushed or changed banger's nftables rules",
            HostHint::FindChange { object: Shared::Rules },
        ),
        Ok(None) => Finding::good(CODE, "present; other rules changed since they were loaded"),
    }
}

/// `None` if Docker is not installed.
fn docker_rules(facts: &Facts<'_>, nft: &Nft) -> Option<Finding> {
    const CODE: &str = "network_docker";
    match nft.has_chain(TableFamily::IPv4, "filter", "DOCKER-USER") {
        Err(error) => return Some(Finding::failed(CODE, &error)),
        Ok(true) if !facts.leases.any_nat() => {
            return Some(Finding::good(
                CODE,
                "two rules are added to `DOCKER-USER` with the first VM",
            ));
        }
        Ok(true) => {
            return Some(match docker::count() {
                Err(error) => Finding::failed(CODE, &error),
                Ok(0) => Finding::bad(
                    CODE,
                    "Docker drops the packets of VMs: banger's rules in `DOCKER-USER` are missing",
                    HostHint::FindChange { object: Shared::DockerRules },
                ),
                Ok(_) => Finding::good(CODE, "rules in `DOCKER-USER` let VMs through"),
            });
        }
        Ok(false) => {}
    }
    // nft can neither list nor change tables of iptables-legacy.
    let legacy = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    let docker = facts.links.iter().any(|link| link.name == "docker0");
    (docker && legacy.lines().any(|table| table == "filter")).then(|| {
        let uplinks =
            docker::uplinks(facts.bridge_index().unwrap_or_default(), &facts.links, &facts.routes);
        let uplink = uplinks.first().map_or("UPLINK", |name| name).to_owned();
        let bridge = facts.places.bridge.clone();
        Finding::bad(
            CODE,
            "Docker uses iptables-legacy and may drop the packets of VMs",
            HostHint::AllowInDocker { bridge, uplink },
        )
    })
}

/// Other firewalls that drop forwarded packets. Whether they allow those of VMs depends on their
/// own configuration, so the finding only mentions them.
fn firewall(facts: &Facts<'_>, nft: &Nft) -> Option<Finding> {
    let there = |of, table: &str, chain: &str| nft.has_chain(of, table, chain).unwrap_or(false);
    let firewall = if there(TableFamily::Inet, "firewalld", "filter_FORWARD") {
        Firewall::Firewalld
    } else if there(TableFamily::IPv4, "filter", "ufw-user-forward") {
        Firewall::Ufw
    } else {
        return None;
    };
    let seen = format!("`{}` is active and may block forwarded packets", firewall.as_str());
    let hint = HostHint::AllowInFirewall { firewall, bridge: facts.places.bridge.clone() };
    Some(Finding { hints: Hints(vec![hint]), ..Finding::good("network_firewall", seen) })
}

/// `None` if there is no bridge.
fn names_routed(facts: &Facts<'_>) -> Option<Finding> {
    const CODE: &str = "network_dns";
    let bridge = facts.bridge.as_ref().ok()?.as_ref()?;
    if !resolved::runs() {
        let seen = "systemd-resolved does not run: this host does not resolve names of VMs";
        return Some(Finding::bad(CODE, seen, HostHint::ForwardNames));
    }
    let configured =
        resolved::routed(facts.places).filter(|(index, _)| *index == bridge.index.to_string());
    let Some((_, server)) = configured else {
        let seen = "systemd-resolved is not configured for names of VMs";
        return Some(Finding::bad(CODE, seen, HostHint::ShowDaemonLog));
    };
    Some(match resolved::is_routed(&bridge.name, &server) {
        Err(error) => Finding::failed(CODE, &error),
        Ok(true) => Finding::good(CODE, format!("systemd-resolved forwards `vm` to `{server}`")),
        Ok(false) => Finding::bad(
            CODE,
            "systemd-resolved lost its configuration for names of VMs",
            HostHint::FindChange { object: Shared::Names },
        ),
    })
}
