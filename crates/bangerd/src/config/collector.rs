//! The collector that spans are sent to.

use std::fmt;
use std::str::FromStr;

use axum::http::uri::Authority;
use banger_api::excerpt;
use serde::Deserialize;

/// A collector of OTLP over HTTP: `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Collector(String);

impl Collector {
    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.0
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let is_plain = |authority: &&str| {
            let parsed = authority.parse::<Authority>();
            parsed.is_ok_and(|one| one.port_u16().is_some() && !authority.contains('@'))
        };
        authority.filter(is_plain).map(|authority| Self(authority.to_owned())).ok_or_else(|| {
            format!("`{}` is not a collector such as http://127.0.0.1:4318", excerpt(text))
        })
    }
}

impl TryFrom<String> for Collector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}
