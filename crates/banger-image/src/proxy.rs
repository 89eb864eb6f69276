//! Proxies between the host and the internet: the values of `[proxy]`, and the environment
//! variables that programs read them from.
//!
//! A proxy's address may contain a password. [`ProxyUrl`] shows it only in
//! [`ProxyUrl::with_password`]; `Display` and `Debug` leave user and password out.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

/// Schemes of proxies that curl(1) and most libraries know.
const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];
/// Longest address of a proxy in bytes.
const MAX_URL: usize = 1024;
/// Most entries of `no_proxy`, and the longest in bytes.
const MAX_ENTRIES: usize = 256;
const MAX_ENTRY: usize = 253;
/// Characters of an address: those of RFC 3986 without the ones that a shell, `/etc/environment`
/// or a systemd unit treats specially. Those are percent-encoded.
const URL_MARKS: &[u8] = b"-._~%!*+,=:@/[]";
/// The host itself, which no proxy can reach for the guest.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Names of VMs.
const VM_ZONE: &str = ".vm";

/// Address of a proxy: `http://[USER:PASSWORD@]HOST[:PORT]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProxyUrl {
    scheme: String,
    /// User and password as written; empty if there are none.
    user_info: String,
    host: String,
    port: Option<u16>,
}

impl FromStr for ProxyUrl {
    type Err = String;

    /// Parses an address; the error does not repeat it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(
            "the address of a proxy begins with its scheme, as in `http://proxy.example:3128`",
        )?;
        if !SCHEMES.contains(&scheme) {
            return Err(format!("the scheme of a proxy is one of {}", SCHEMES.join(", ")));
        }
        if text.len() > MAX_URL {
            return Err(format!("the address of a proxy has at most {MAX_URL} characters"));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || URL_MARKS.contains(&byte);
        if !text.bytes().all(known) || !is_encoded(text) {
            return Err("the address of a proxy contains a character that must be \
                        percent-encoded (`$` as `%24`, a space as `%20`, `%` as `%25`)"
                .into());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user_info, authority) = rest.rsplit_once('@').unwrap_or(("", rest));
        if rest.contains('/') {
            return Err("the address of a proxy has no path; `/` and `@` in a password are \
                        percent-encoded as `%2F` and `%40`"
                .into());
        }
        if user_info.contains(['@', '[', ']']) {
            return Err(
                "`@`, `[` and `]` in a user name or password are percent-encoded as `%40`, \
                        `%5B` and `%5D`"
                    .into(),
            );
        }
        let (host, port) = host_and_port(authority)?;
        let (scheme, user_info) = (scheme.to_owned(), user_info.to_owned());
        Ok(Self { scheme, user_info, host, port })
    }
}

/// Whether each `%` begins an encoded byte that is not a control character.
fn is_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        digits.is_some_and(|byte| !byte.is_ascii_control())
            && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())
    })
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), String> {
    let bad = || "the address of a proxy has no valid host name or IP address".to_owned();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(bad)?),
            };
            (format!("[{address}]"), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !(host.starts_with('[') || host.bytes().all(is_name)) {
        return Err(bad());
    }
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.map(|text| {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0 && is_port(text));
        port.ok_or_else(|| "the port of a proxy is a number from 1 to 65535".to_owned())
    });
    Ok((host, port.transpose()?))
}

impl TryFrom<String> for ProxyUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Without user and password.
impl Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = if self.user_info.is_empty() { "" } else { "***@" };
        write!(f, "{}://{hidden}{}", self.scheme, self.authority())
    }
}

impl Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl ProxyUrl {
    /// The whole address, for the environment of a program.
    pub fn with_password(&self) -> String {
        let at = if self.user_info.is_empty() { "" } else { "@" };
        format!("{}://{}{at}{}", self.scheme, self.user_info, self.authority())
    }

    fn authority(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.host)
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// Port, by default that of the scheme as curl(1) takes it.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme.as_str() {
            "https" => 443,
            _ => 1080,
        })
    }

    /// Whether the proxy listens on this host's loopback address.
    pub fn is_on_loopback(&self) -> bool {
        let address = self.host().parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
    }

    /// The same proxy at another address.
    fn at(&self, address: IpAddr) -> Self {
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        Self { host, ..self.clone() }
    }
}

/// Hosts that are reached without a proxy: names, suffixes as `.example`, addresses and networks,
/// in the file a list or text separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Listed")]
pub struct NoProxy(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of host names, or text with commas between them")]
enum Listed {
    Text(String),
    List(Vec<String>),
}

impl TryFrom<Listed> for NoProxy {
    type Error = String;

    fn try_from(listed: Listed) -> Result<Self, String> {
        match listed {
            Listed::Text(text) => text.parse(),
            Listed::List(list) => Self::of(list),
        }
    }
}

impl FromStr for NoProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::of(text.split(',').map(|entry| entry.trim().to_owned()).collect())
    }
}

impl NoProxy {
    fn of(entries: Vec<String>) -> Result<Self, String> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:*/[]".contains(&byte);
        let is_good =
            |entry: &str| !entry.is_empty() && entry.len() <= MAX_ENTRY && entry.bytes().all(known);
        if entries.len() > MAX_ENTRIES {
            return Err(format!("`no_proxy` has at most {MAX_ENTRIES} entries"));
        }
        match entries.iter().find(|entry| !is_good(entry)) {
            Some(bad) => {
                let shown = banger_api::excerpt(bad);
                Err(format!("`{shown}` is not a host name, an address or a network"))
            }
            None => Ok(Self(entries)),
        }
    }
}

impl Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// `[proxy]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// Proxy of http.
    pub http: Option<ProxyUrl>,
    /// Proxy of https.
    pub https: Option<ProxyUrl>,
    /// Proxy of ftp.
    pub ftp: Option<ProxyUrl>,
    /// Hosts reached directly.
    pub no_proxy: NoProxy,
}

/// Environment variables by name.
pub type Variables = BTreeMap<String, String>;

impl ProxySettings {
    /// The proxies with the word of their key and variable.
    pub fn proxies(&self) -> impl Iterator<Item = (&'static str, &ProxyUrl)> {
        let all = [("http", &self.http), ("https", &self.https), ("ftp", &self.ftp)];
        all.into_iter().filter_map(|(word, proxy)| Some((word, proxy.as_ref()?)))
    }

    /// Names of variables that programs take proxies from, in both cases.
    pub fn names() -> impl Iterator<Item = String> {
        let words = ["http", "https", "ftp", "all", "no"];
        let names = words.map(|word| format!("{word}_proxy"));
        names.into_iter().flat_map(|name| [name.to_uppercase(), name])
    }

    /// The variables for programs of this host; empty without a proxy.
    pub fn variables(&self) -> Variables {
        self.with_direct(&[])
    }

    /// The variables for a guest in this network, which reaches this host's loopback address at
    /// `loopback`, if at all.
    pub fn guest_variables(&self, network: Option<String>, loopback: Option<IpAddr>) -> Variables {
        let moved = |proxy: &Option<ProxyUrl>| {
            let proxy = proxy.clone()?;
            Some(match loopback {
                Some(address) if proxy.is_on_loopback() => proxy.at(address),
                _ => proxy,
            })
        };
        let (http, https, ftp) = (moved(&self.http), moved(&self.https), moved(&self.ftp));
        let seen_by_guest = Self { http, https, ftp, no_proxy: self.no_proxy.clone() };
        seen_by_guest.with_direct(&network.into_iter().collect::<Vec<_>>())
    }

    fn with_direct(&self, networks: &[String]) -> Variables {
        let mut variables: Vec<(String, String)> = self
            .proxies()
            .map(|(word, proxy)| (format!("{word}_proxy"), proxy.with_password()))
            .collect();
        if variables.is_empty() {
            return Variables::new();
        }
        let mut direct: Vec<&str> = LOCAL.into_iter().chain([VM_ZONE]).collect();
        for entry in networks.iter().chain(&self.no_proxy.0) {
            if !direct.contains(&entry.as_str()) {
                direct.push(entry);
            }
        }
        variables.push(("no_proxy".into(), direct.join(",")));
        let both =
            |(name, value): (String, String)| [(name.to_uppercase(), value.clone()), (name, value)];
        variables.into_iter().flat_map(both).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ProxyUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_proxies_and_their_defaults() {
        for (text, host, port) in [
            ("http://proxy.example:3128", "proxy.example", 3128),
            ("http://proxy.example:3128/", "proxy.example", 3128),
            ("http://proxy", "proxy", 1080),
            ("https://10.0.0.1", "10.0.0.1", 443),
            ("socks5h://[fd00::1]:1080", "fd00::1", 1080),
            ("http://me:p%40ss%24@proxy:8080", "proxy", 8080),
        ] {
            let parsed = url(text);
            assert_eq!((parsed.host(), parsed.port()), (host, port), "{text}");
            assert_eq!(parsed.with_password(), text.trim_end_matches('/'));
        }
        for on_loopback in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:3128"] {
            assert!(url(on_loopback).is_on_loopback(), "{on_loopback}");
        }
        assert!(!url("http://10.0.0.1").is_on_loopback());
    }

    #[test]
    fn bad_addresses_are_refused_and_not_repeated() {
        for text in [
            "",
            "proxy:3128",
            "user:secret@proxy:3128",
            "ftp://user:secret@proxy",
            "HTTP//user:secret@proxy",
            "http://",
            "http://user:secret@",
            "http://user:secret@:3128",
            "http://user:secret@proxy:0",
            "http://user:secret@proxy:65536",
            "http://user:secret@proxy:+1",
            "http://user:secret@proxy:",
            "http://user:secret@proxy/path",
            "http://user:sec/secret@proxy",
            "http://user:secret@x@proxy",
            "http://user:secret$@proxy",
            "http://user:secret'@proxy",
            "http://user:secret\n@proxy",
            "http://user:secret%@proxy",
            "http://user:secret%0a@proxy",
            "http://user:secret%zz@proxy",
            "http://user:secret @proxy",
            "http://user:secrét@proxy",
            "http://user:secret@[fd00::zz]",
            "http://user:secret@[fd00::1]x",
            "http://user:secret@pro%20xy",
        ] {
            let problem = text.parse::<ProxyUrl>().unwrap_err();
            assert!(!problem.contains("secret") && !problem.contains("user:"), "{problem}");
        }
        assert!(format!("http://{}", "x".repeat(2000)).parse::<ProxyUrl>().is_err());
    }

    #[test]
    fn neither_user_nor_password_is_shown() {
        let proxy = url("http://user:secret@proxy:3128");
        assert_eq!(proxy.to_string(), "http://***@proxy:3128");
        let settings = ProxySettings { http: Some(proxy), ..ProxySettings::default() };
        let debug = format!("{settings:?}");
        assert!(!debug.contains("secret") && !debug.contains("user"), "{debug}");
    }

    #[test]
    fn variables_have_both_cases() {
        assert_eq!(ProxySettings::default().variables(), Variables::new());
        let no_proxy = NoProxy(vec![".corp".into(), "localhost".into()]);
        let alone = ProxySettings { no_proxy: no_proxy.clone(), ..ProxySettings::default() };
        assert_eq!(alone.variables(), Variables::new(), "nothing is excluded from no proxy");
        let https = Some(url("http://u:p@proxy:1"));
        let settings = ProxySettings { https, no_proxy, ..ProxySettings::default() };
        let variables = settings.variables();
        for (name, value) in [
            ("https_proxy", "http://u:p@proxy:1"),
            ("HTTPS_PROXY", "http://u:p@proxy:1"),
            ("no_proxy", "localhost,127.0.0.1,::1,.vm,.corp"),
            ("NO_PROXY", "localhost,127.0.0.1,::1,.vm,.corp"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(variables.len(), 4);
        let names: Vec<String> = ProxySettings::names().collect();
        assert!(variables.keys().all(|name| names.contains(name)));
    }

    #[test]
    fn a_guest_reaches_the_loopback_address_elsewhere_or_not_at_all() {
        let settings =
            ProxySettings { http: Some(url("http://localhost:3128")), ..ProxySettings::default() };
        let network = || Some("10.0.2.0/24".to_owned());
        let variables = settings.guest_variables(network(), Some([10, 0, 2, 2].into()));
        assert_eq!(variables["http_proxy"], "http://10.0.2.2:3128");
        assert_eq!(variables["no_proxy"], "localhost,127.0.0.1,::1,.vm,10.0.2.0/24");
        let variables = settings.guest_variables(network(), None);
        assert_eq!(variables["http_proxy"], "http://localhost:3128");
    }

    #[test]
    fn lists_of_direct_hosts() {
        let parsed: NoProxy = "a.example, .b,10.0.0.0/8,[::1],*".parse().unwrap();
        assert_eq!(parsed.to_string(), "a.example,.b,10.0.0.0/8,[::1],*");
        for bad in ["", "a,,b", "a b", "a'b", "a\nb", "http://$x"] {
            assert!(bad.parse::<NoProxy>().is_err(), "{bad:?}");
        }
        assert!(vec!["x"; 257].join(",").parse::<NoProxy>().is_err());
    }
}
