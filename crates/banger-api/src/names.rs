//! VM names: DNS labels, and generated two-word names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum length: that of a DNS label (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 63;

/// A VM's name: 1–63 of a–z, 0–9 and inner hyphens.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct VmName(String);

/// Reason why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a VM name: {problem}")]
pub struct BadName {
    name: String,
    problem: &'static str,
}

impl VmName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Generates a name from a number, such as `brisk-otter`; `round` > 0 appends a number, for use
    /// if the plain name is taken.
    pub fn friendly(seed: u64, round: u32) -> Self {
        let adjective = ADJECTIVES[(seed % ADJECTIVES.len() as u64) as usize];
        let animal = ANIMALS[(seed / ADJECTIVES.len() as u64 % ANIMALS.len() as u64) as usize];
        match round {
            0 => Self(format!("{adjective}-{animal}")),
            n => Self(format!("{adjective}-{animal}-{n}")),
        }
    }
}

impl FromStr for VmName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let problem = if text.is_empty() {
            "it is empty"
        } else if text.len() > MAX_NAME {
            "it is longer than 63 characters"
        } else if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            "only a-z, 0-9 and hyphens are allowed"
        } else if text.starts_with('-') || text.ends_with('-') {
            "it must not begin or end with a hyphen"
        } else {
            return Ok(Self(text.to_owned()));
        };
        let shown = |c: char| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        };
        let name = text.chars().take(MAX_NAME + 1).map(shown).collect();
        Err(BadName { name, problem })
    }
}

impl TryFrom<String> for VmName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> String {
        name.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const ADJECTIVES: [&str; 48] = [
    "amber", "ample", "bold", "brave", "breezy", "bright", "brisk", "calm", "clever", "cosmic",
    "crisp", "curious", "dapper", "eager", "early", "fancy", "fleet", "fresh", "gentle", "glad",
    "golden", "grand", "happy", "hardy", "jolly", "keen", "kind", "lively", "lucky", "lunar",
    "mellow", "merry", "mighty", "nimble", "noble", "plucky", "polite", "proud", "quick", "quiet",
    "rapid", "shiny", "smart", "snug", "solar", "steady", "sunny", "witty",
];

const ANIMALS: [&str; 48] = [
    "badger", "bear", "beaver", "bison", "bobcat", "camel", "crane", "deer", "dingo", "dolphin",
    "eagle", "falcon", "ferret", "finch", "fox", "gecko", "gibbon", "goose", "hare", "heron",
    "hippo", "ibex", "iguana", "jackal", "koala", "lemur", "llama", "lynx", "magpie", "marmot",
    "marten", "mole", "moose", "newt", "ocelot", "otter", "owl", "panda", "puffin", "quail",
    "rabbit", "raven", "robin", "seal", "stoat", "tapir", "toad", "walrus",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in ["a", "0", "web-1", "a--b", &"x".repeat(63)] {
            assert!(name.parse::<VmName>().is_ok(), "{name}");
        }
        for seed in [0, 1, 47, 48, 2303, u64::MAX] {
            for round in [0, 7] {
                let made = VmName::friendly(seed, round);
                assert_eq!(made.as_str().parse(), Ok(made.clone()));
            }
        }
    }

    #[test]
    fn bad_names_name_the_problem() {
        let say = |name: &str| name.parse::<VmName>().unwrap_err().to_string();
        assert_eq!(say(""), "`` is not a VM name: it is empty");
        assert_eq!(say("Web"), "`Web` is not a VM name: only a-z, 0-9 and hyphens are allowed");
        assert_eq!(say("-a"), "`-a` is not a VM name: it must not begin or end with a hyphen");
        assert_eq!(say("ä"), "`ä` is not a VM name: only a-z, 0-9 and hyphens are allowed");
        assert_eq!(say("a\n"), "`a\\n` is not a VM name: only a-z, 0-9 and hyphens are allowed");
        assert!(say(&"x".repeat(64)).ends_with("it is longer than 63 characters"));
    }
}
