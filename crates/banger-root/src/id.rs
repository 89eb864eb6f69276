//! A VM's id as this program accepts it, and what derives from it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Kind, RootError};

/// Hex digits of an id.
const DIGITS: usize = 12;
/// First uid of the range that VMMs run as: between what systemd gives to containers and the
/// largest uid that all tools understand (systemd's `UIDS-GIDS` page).
const FIRST_UID: u32 = 1_879_048_192;
/// Size of that range.
const UIDS: u64 = 1 << 27;

/// Twelve lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Id(String);

impl Id {
    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn bits(&self) -> u64 {
        // Checked when it was made.
        u64::from_str_radix(&self.0, 16).unwrap_or_default()
    }

    /// The uid and gid that its VMM runs as.
    pub fn uid(&self) -> u32 {
        FIRST_UID + (self.bits() % UIDS) as u32
    }

    /// Its TAP interface: `fc-` and the id, the 15 bytes that a name may have (IFNAMSIZ,
    /// netdevice(7)).
    pub fn tap(&self) -> String {
        format!("fc-{}", self.0)
    }

    /// Its MAC address: locally administered, unicast.
    pub fn mac(&self) -> [u8; 6] {
        let [_, _, _, b, c, d, e, f] = self.bits().to_be_bytes();
        [2, b, c, d, e, f]
    }

    /// Name of a host object of this VM: `banger-ID-WHAT`.
    pub fn object(&self, what: &str) -> String {
        format!("banger-{}-{what}", self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Id {
    type Err = RootError;

    fn from_str(text: &str) -> Result<Self, RootError> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == DIGITS && text.bytes().all(hex) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(20).map(|c| c.escape_default().to_string()).collect();
        Err(RootError::new(Kind::BadRequest, format!("`{shown}` is not the id of a VM")))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_nothing_else() {
        let id: Id = "0123456789ab".parse().unwrap();
        assert_eq!(id.tap(), "fc-0123456789ab");
        assert_eq!(id.mac(), [2, 0x23, 0x45, 0x67, 0x89, 0xab]);
        assert_eq!(id.object("root"), "banger-0123456789ab-root");
        for bad in
            ["", "0123456789a", "0123456789abc", "0123456789aB", "../../../../x", "é23456789ab"]
        {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }
}
