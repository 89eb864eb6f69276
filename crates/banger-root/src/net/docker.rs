//! Docker drops what is forwarded and not its own, and a drop wins over every accept elsewhere. It
//! leaves the chain `DOCKER-USER` for rules that come before its own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::link::{Link, Means, Route};
use super::nft;
use crate::error::RootError;

/// The chain, as nft names it.
const CHAIN: &str = "chain ip filter DOCKER-USER";
/// A rule of it.
const RULE: &str = "rule ip filter DOCKER-USER";
/// The comment that tells our rules there from others.
const COMMENT: &str = "banger: guests";

/// Interfaces that lead to the outside: those with a route through a router, and those with any
/// route that are no bridge. The bridges of containers are neither, and stay out of reach.
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

/// The text that puts our rules first, after removing those of before. Nothing but names of
/// interfaces is compared: `iptables` gives up on a whole table where it meets what it cannot show.
/// That only answers come back is seen to by our own table.
///
/// # Errors
/// Those of listing.
pub fn rules(bridge: &str, uplinks: &BTreeSet<String>) -> Result<String, RootError> {
    let mut text = without()?;
    for uplink in uplinks.iter().filter(|name| is_plain(name)) {
        let both = format!("iifname \"{bridge}\" oifname \"{uplink}\"");
        text += &format!("insert {RULE} {both} accept comment \"{COMMENT} to the outside\"\n");
    }
    let back = format!("oifname \"{bridge}\"");
    text += &format!("insert {RULE} {back} accept comment \"{COMMENT} get answers\"\n");
    Ok(text)
}

/// The text that removes our rules.
///
/// # Errors
/// Those of listing.
pub fn without() -> Result<String, RootError> {
    let listed = nft::list(CHAIN)?.unwrap_or_default();
    Ok(ours(&listed).map(|handle| format!("delete {RULE} handle {handle}\n")).collect())
}

/// How many rules of ours are in the chain.
///
/// # Errors
/// Those of listing.
pub fn count() -> Result<usize, RootError> {
    Ok(ours(&nft::list(CHAIN)?.unwrap_or_default()).count())
}

/// Handles of our rules in a list.
fn ours(listed: &Value) -> impl Iterator<Item = u64> {
    listed.as_array().into_iter().flatten().filter_map(|thing| {
        let rule = thing.get("rule")?;
        rule.get("comment")?.as_str().filter(|comment| comment.starts_with(COMMENT))?;
        rule.get("handle")?.as_u64()
    })
}

/// A name that means itself within quotation marks; interfaces may be called almost anything.
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
    fn what_leads_out() {
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
