//! Published ports: TCP ports of the host that forward to ports of a guest.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum number of published ports of a VM.
pub const MAX_PUBLISHED: usize = 64;

/// A TCP port of the host that forwards to a port of the guest.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct PortForward {
    /// Address of the host to listen on; the loopback address if absent.
    #[serde(default = "loopback")]
    #[schema(value_type = String, examples("127.0.0.1", "::1"))]
    pub listen: IpAddr,
    /// Port of the host, from 1.
    #[schema(minimum = 1, maximum = 65_535)]
    pub host_port: u16,
    /// Port of the guest, from 1.
    #[schema(minimum = 1, maximum = 65_535)]
    pub guest_port: u16,
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// Reason why a port cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPublish {
    /// Invalid syntax.
    #[error("`{text}` is not a port to publish: {problem}")]
    Text {
        /// The text.
        text: String,
        /// The error.
        problem: &'static str,
    },
    /// Port 0.
    #[error("port 0 cannot be published: ports are 1 to 65535")]
    Zero,
    /// Two entries with the same port of the host.
    #[error("`{0}` is published twice")]
    Twice(SocketAddr),
    /// Too many published ports.
    #[error("{0} published ports: a VM has at most {MAX_PUBLISHED}")]
    TooMany(usize),
}

impl PortForward {
    /// The address and port that the host listens on.
    pub fn listens_on(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.host_port)
    }

    /// Whether both need the same port: on one address, or one of them on all addresses.
    fn collides(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.listen, other.listen);
        self.host_port == other.host_port
            && (ours == theirs
                || ours.is_ipv4() == theirs.is_ipv4()
                    && (ours.is_unspecified() || theirs.is_unspecified()))
    }
}

/// Checks the published ports of one VM.
///
/// # Errors
/// Too many ports, port 0, or the same port of the host twice.
pub fn check(ports: &[PortForward]) -> Result<(), BadPublish> {
    if ports.len() > MAX_PUBLISHED {
        return Err(BadPublish::TooMany(ports.len()));
    }
    for (place, port) in ports.iter().enumerate() {
        if port.host_port == 0 || port.guest_port == 0 {
            return Err(BadPublish::Zero);
        }
        if ports.iter().take(place).any(|earlier| earlier.collides(port)) {
            return Err(BadPublish::Twice(port.listens_on()));
        }
    }
    Ok(())
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listens_on(), self.guest_port)
    }
}

/// Maximum length of a quoted text in characters.
const SHOWN: usize = 80;

/// `[ADDR:]HOST:GUEST[/tcp]`; an IPv6 address is written in brackets.
impl FromStr for PortForward {
    type Err = BadPublish;

    fn from_str(text: &str) -> Result<Self, BadPublish> {
        let bad = |problem| BadPublish::Text {
            text: text.chars().take(SHOWN).flat_map(char::escape_default).collect(),
            problem,
        };
        let ports = match text.split_once('/') {
            None | Some((_, "tcp")) => text.split('/').next().unwrap_or_default(),
            Some(_) => return Err(bad("only TCP can be published")),
        };
        let missing = || bad("write HOST:GUEST, such as 8080:80");
        let (before, guest) = ports.rsplit_once(':').ok_or_else(missing)?;
        let (address, host) = match before.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, before),
        };
        let listen = match address {
            None => loopback(),
            Some(address) => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let found = match bare {
                    Some(bare) => bare.parse().map(IpAddr::V6),
                    None => address.parse().map(IpAddr::V4),
                };
                found.map_err(|_| {
                    bad("the address is neither IPv4 nor IPv6 in brackets, such as [::1]")
                })?
            }
        };
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.parse::<u16>() {
                Ok(port) if digits && port > 0 => Ok(port),
                _ => Err(bad("a port is a number from 1 to 65535")),
            }
        };
        Ok(Self { listen, host_port: port(host)?, guest_port: port(guest)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> PortForward {
        text.parse().unwrap()
    }

    #[test]
    fn published_ports_are_parsed() {
        for (text, shown) in [
            ("8080:80", "127.0.0.1:8080:80"),
            ("8080:80/tcp", "127.0.0.1:8080:80"),
            ("0.0.0.0:1:65535", "0.0.0.0:1:65535"),
            ("[::1]:8080:80", "[::1]:8080:80"),
            ("[::]:8080:80/tcp", "[::]:8080:80"),
        ] {
            assert_eq!(parsed(text).to_string(), shown, "{text}");
            assert_eq!(parsed(shown), parsed(text), "the displayed form can be parsed");
        }
    }

    #[test]
    fn invalid_ports_name_the_problem() {
        let number = "a port is a number from 1 to 65535";
        let address = "the address is neither IPv4 nor IPv6 in brackets, such as [::1]";
        let form = "write HOST:GUEST, such as 8080:80";
        for (text, problem) in [
            ("", form),
            ("80", form),
            ("8080:80/udp", "only TCP can be published"),
            ("8080:80/tcp/tcp", "only TCP can be published"),
            (":80", number),
            ("8080:", number),
            ("0:80", number),
            ("8080:0", number),
            ("65536:80", number),
            ("+80:80", number),
            ("-1:80", number),
            ("localhost:8080:80", address),
            ("::1:8080:80", address),
            ("[127.0.0.1]:8080:80", address),
            (":8080:80", address),
            ("1.2.3.4.5:8080:80", address),
        ] {
            let error = text.parse::<PortForward>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{text}` is not a port to publish: {problem}"));
        }
        let long = "x".repeat(5000);
        assert!(long.parse::<PortForward>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn a_host_port_can_be_published_once() {
        let all = |texts: &[&str]| {
            let ports: Vec<PortForward> = texts.iter().map(|text| parsed(text)).collect();
            check(&ports).map_err(|error| error.to_string())
        };
        assert_eq!(all(&[]), Ok(()));
        assert_eq!(all(&["8080:80", "8081:80", "127.0.0.2:8080:80", "[::]:8080:80"]), Ok(()));
        let twice = |text: &str| Err(format!("`{text}` is published twice"));
        assert_eq!(all(&["8080:80", "8080:81"]), twice("127.0.0.1:8080"));
        assert_eq!(all(&["8080:80", "0.0.0.0:8080:80"]), twice("0.0.0.0:8080"));
        assert_eq!(all(&["[::]:8080:80", "[::1]:8080:80"]), twice("[::1]:8080"));
        let many: Vec<PortForward> = (1..=65).map(|port| parsed(&format!("{port}:80"))).collect();
        assert_eq!(check(&many), Err(BadPublish::TooMany(65)));
        assert_eq!(check(&many[1..]), Ok(()));
        let zero = PortForward { guest_port: 0, ..parsed("8080:80") };
        assert_eq!(check(&[zero]), Err(BadPublish::Zero));
    }

    #[test]
    fn the_default_address_is_loopback() {
        let decoded: PortForward =
            serde_json::from_str(r#"{"host_port": 8080, "guest_port": 80}"#).unwrap();
        assert_eq!(decoded, parsed("8080:80"));
        assert!(serde_json::from_str::<PortForward>(r#"{"host_port": 1}"#).is_err());
    }
}
