//! Which requests are admitted, before any of them is read further: decided purely from headers.
//!
//! A browser runs pages of many origins, some of them hostile, and some of them served by guests
//! on published ports of the same loopback address. Three checks keep those out:
//!
//! - `Host` is the address or a name of this host, so that a name that an attacker has pointed to
//!   127.0.0.1 (DNS rebinding) is refused.
//! - `Origin` of every request that changes something or opens a WebSocket is the page's own,
//!   scheme, host and port. Cookies do not tell ports apart, `Origin` does.
//! - `Sec-Fetch-Site`, where the browser sends it, does not name another site or another origin of
//!   this site, except for a plain navigation.

/// Headers of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
    /// `Sec-Fetch-Mode`.
    pub fetch_mode: Option<&'a str>,
    /// What the request is for.
    pub purpose: Purpose,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To read.
    #[default]
    Read,
    /// To change something (`POST`).
    Change,
    /// To open a WebSocket.
    Socket,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The name in `Host` is not one of this host.
    Host,
    /// Another page sent the request.
    Origin,
}

impl Refusal {
    /// The reason in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Host => {
                "This page answers only under an address of this computer, such as 127.0.0.1 or \
                 localhost."
            }
            Self::Origin => "The request came from another page.",
        }
    }
}

/// Decides whether a request is admitted.
///
/// # Errors
/// The reason why it is not.
pub fn admit(facts: &Facts<'_>) -> Result<(), Refusal> {
    let host = facts.host.filter(|host| is_loopback_host(host)).ok_or(Refusal::Host)?;
    let own_origin =
        |origin: &str| origin.strip_prefix("http://").is_some_and(|o| o.eq_ignore_ascii_case(host));
    if facts.origin.is_some_and(|origin| !own_origin(origin)) {
        return Err(Refusal::Origin);
    }
    if facts.purpose != Purpose::Read && facts.origin.is_none() {
        return Err(Refusal::Origin);
    }
    let navigates = facts.purpose == Purpose::Read && facts.fetch_mode == Some("navigate");
    match facts.fetch_site {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if navigates => Ok(()),
        Some(_) => Err(Refusal::Origin),
    }
}

/// Whether a `Host` names the loopback interface, with any port: a forwarded port
/// (`ssh -L 8000:127.0.0.1:7777`) has another one.
fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, "80"),
    };
    let is_port = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    is_port && (name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(host: &'a str, origin: Option<&'a str>, purpose: Purpose) -> Facts<'a> {
        Facts { host: Some(host), origin, purpose, ..Facts::default() }
    }

    #[test]
    fn only_names_of_the_loopback_interface_are_answered() {
        for host in ["127.0.0.1:7777", "localhost:7777", "LocalHost:1", "[::1]:7777", "localhost"] {
            assert_eq!(admit(&facts(host, None, Purpose::Read)), Ok(()), "{host}");
        }
        for host in [
            "evil.example:7777",
            "evil.example",
            "127.0.0.1.evil.example:7777",
            "localhost.evil.example",
            "evil.example:127.0.0.1",
            "0.0.0.0:7777",
            "169.254.169.254",
            "[::1",
            "127.0.0.1:",
            "127.0.0.1:7777 ",
            "user@127.0.0.1:7777",
            "",
        ] {
            assert_eq!(admit(&facts(host, None, Purpose::Read)), Err(Refusal::Host), "{host}");
        }
        let none = Facts::default();
        assert_eq!(admit(&none), Err(Refusal::Host));
    }

    #[test]
    fn changes_and_sockets_need_the_own_origin() {
        let own = "http://127.0.0.1:7777";
        for purpose in [Purpose::Change, Purpose::Socket] {
            assert_eq!(admit(&facts("127.0.0.1:7777", Some(own), purpose)), Ok(()));
            for origin in [
                None,
                Some("null"),
                Some("http://evil.example"),
                // A page of a guest on a published port.
                Some("http://127.0.0.1:8080"),
                Some("http://localhost:7777"),
                Some("https://127.0.0.1:7777"),
                Some("http://127.0.0.1:7777.evil.example"),
                Some("http://127.0.0.1:77777"),
                Some(""),
            ] {
                let facts = facts("127.0.0.1:7777", origin, purpose);
                assert_eq!(admit(&facts), Err(Refusal::Origin), "{origin:?}");
            }
        }
        let foreign = Some("http://evil.example");
        let read = facts("127.0.0.1:7777", foreign, Purpose::Read);
        assert_eq!(admit(&read), Err(Refusal::Origin));
    }

    #[test]
    fn other_sites_may_only_navigate() {
        let of = |site, mode, purpose| Facts {
            fetch_site: Some(site),
            fetch_mode: Some(mode),
            ..facts("localhost:7777", Some("http://localhost:7777"), purpose)
        };
        for (site, mode, purpose, admitted) in [
            ("same-origin", "cors", Purpose::Change, true),
            ("none", "navigate", Purpose::Read, true),
            ("cross-site", "navigate", Purpose::Read, true),
            ("cross-site", "no-cors", Purpose::Read, false),
            ("same-site", "cors", Purpose::Read, false),
            ("same-site", "navigate", Purpose::Change, false),
            ("same-site", "websocket", Purpose::Socket, false),
        ] {
            assert_eq!(admit(&of(site, mode, purpose)).is_ok(), admitted, "{site} {mode}");
        }
    }
}
