//! Rules in Docker's chain `DOCKER-USER`. Docker drops forwarded packets other than its own, and a
//! drop takes precedence over an accept in another table; rules in this chain run before Docker's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::link::{Link, Means, Route};
use super::nft;
use crate::error::RootError;

/// The chain, in nft syntax.
const CHAIN: &str = "chain ip filter DOCKER-USER";
/// A rule of the chain, in nft syntax.
const RULE: &str = "rule ip filter DOCKER-USER";
/// Prefix of the comments of banger's rules.
const COMMENT: &str = "banger: guests";

/// Uplinks: interfaces with a route through a router, and interfaces other than bridges with any
/// route. Bridges of containers are neither, so guests cannot reach them.
pub fn uplinks(bridge: u32, links: &[Link], routes: &[Route]) -> BTreeSet<String> {
    let leads_out = |link: &&Link| {
        link.index != bridge
            && link.name != "lo"
            && routes.iter().any(|route| {
                route.means == Means::Unicast
                    && route.link == link.index
                    && (route.routed || route.to.prefix_len() == 0 || link.kind != "bridge")
            })
    };
    links.iter().filter(leads_out).map(|link| link.name.clone()).collect()
}

/// The nft text that removes earlier rules of banger and inserts the current ones. The rules match
/// interface names only: `iptables` fails on a whole table if it contains an expression that it
/// cannot display. banger's own table checks the connection state.
///
/// # Errors
/// Errors of `nft list`.
pub fn rules(bridge: &str, uplinks: &BTreeSet<String>) -> Result<String, RootError> {
    let mut text = removal()?;
    for uplink in uplinks.iter().filter(|name| is_plain(name)) {
        let both = format!("iifname \"{bridge}\" oifname \"{uplink}\"");
        text += &format!("insert {RULE} {both} accept comment \"{COMMENT} to the outside\"\n");
    }
    let back = format!("oifname \"{bridge}\"");
    text += &format!("insert {RULE} {back} accept comment \"{COMMENT} get answers\"\n");
    Ok(text)
}

/// The nft text that removes banger's rules.
///
/// # Errors
/// Errors of `nft list`.
pub fn removal() -> Result<String, RootError> {
    let listed = nft::list(CHAIN)?.unwrap_or_default();
    Ok(ours(&listed).map(|handle| format!("delete {RULE} handle {handle}\n")).collect())
}

/// Number of banger's rules in the chain.
///
/// # Errors
/// Errors of `nft list`.
pub fn count() -> Result<usize, RootError> {
    Ok(ours(&nft::list(CHAIN)?.unwrap_or_default()).count())
}

/// Handles of banger's rules in a listing.
fn ours(listed: &Value) -> impl Iterator<Item = u64> {
    listed.as_array().into_iter().flatten().filter_map(|thing| {
        let rule = thing.get("rule")?;
        rule.get("comment")?.as_str().filter(|comment| comment.starts_with(COMMENT))?;
        rule.get("handle")?.as_u64()
    })
}

/// Whether a name needs no escaping within quotation marks: interface names may contain almost any
/// byte.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index,
            name: name.into(),
            mac: None,
            up: true,
            kind: kind.into(),
            master: None,
            isolated: false,
            owner: None,
        }
    }

    fn route(prefix: u8, link: u32, routed: bool) -> Route {
        let to = ipnet::Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix).unwrap();
        Route { to, means: Means::Unicast, link, routed }
    }

    #[test]
    fn uplinks_have_routes_and_are_no_bridges() {
        let links = [
            link(1, "lo", ""),
            link(2, "eth0", ""),
            link(3, "docker0", "bridge"),
            link(4, "br-lan", "bridge"),
            link(5, "wg0", "wireguard"),
            link(6, "br-fc", "bridge"),
            link(7, "eth1", ""),
        ];
        let routes = [
            route(8, 1, false),
            route(24, 2, false),
            route(16, 3, false),
            route(24, 4, false),
            route(0, 4, true),
            route(24, 5, false),
            route(24, 6, false),
        ];
        let found = uplinks(6, &links, &routes);
        assert_eq!(found.iter().collect::<Vec<_>>(), ["br-lan", "eth0", "wg0"]);
    }

    #[test]
    fn only_our_rules_are_removed() {
        let listed = serde_json::json!([
            { "chain": { "handle": 1 } },
            { "rule": { "handle": 2, "comment": "banger: guests get answers" } },
            { "rule": { "handle": 3 } },
            { "rule": { "handle": 4, "comment": "mine" } },
        ]);
        assert_eq!(ours(&listed).collect::<Vec<_>>(), [2]);
        assert!(is_plain("eth0.7") && !is_plain("a\"b") && !is_plain(""));
    }
}
