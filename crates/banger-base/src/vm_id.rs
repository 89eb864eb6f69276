//! Ids of VMs, and the names, uids and addresses on the host that derive from them.
//!
//! Everything that a VM has on the host is named after its id, so that undoing needs no record and
//! an orphan can be traced to its VM.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hex digits of an id.
const DIGITS: usize = 12;
/// Bits of an id.
const MASK: u64 = (1 << 48) - 1;
/// First uid of the range that VMMs run as: between the range that systemd assigns to containers
/// and the largest uid that all tools support (systemd, `docs/UIDS-GIDS.md`).
const FIRST_UID: u32 = 1_879_048_192;
/// Size of that range.
const UIDS: u64 = 1 << 27;
/// Longest refused text that an error repeats, in characters.
const MAX_SHOWN: usize = 80;

/// Prefix of the TAP interface of a VM.
pub const TAP_PREFIX: &str = "fc-";
/// Prefix of a TAP interface that is kept ready and belongs to no VM yet.
pub const POOL_TAP_PREFIX: &str = "fcp-";

/// Id of a VM: 12 lowercase hex digits, 48 random bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct VmId(String);

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId {
    shown: String,
    wanted: &'static str,
}

impl BadId {
    /// `wanted` describes the kind, with its article and form. The beginning of the text becomes
    /// part of the error, control characters escaped.
    pub fn new(text: &str, wanted: &'static str) -> Self {
        let escaped = text.chars().take(MAX_SHOWN).map(|c| match c {
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        });
        Self { shown: escaped.collect(), wanted }
    }
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not {}", self.shown, self.wanted)
    }
}

impl std::error::Error for BadId {}

impl VmId {
    /// An id from the lower 48 of these random bits.
    pub fn from_entropy(bits: u64) -> Self {
        Self(format!("{:012x}", bits & MASK))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a number of 48 bits.
    pub fn bits(&self) -> u64 {
        // The digits were checked when the id was made.
        u64::from_str_radix(&self.0, 16).unwrap_or_default()
    }

    /// The uid and gid that the VMM and its companion run as where root starts them.
    pub fn uid(&self) -> u32 {
        FIRST_UID + (self.bits() % UIDS) as u32
    }

    /// Name of the TAP interface: the prefix and the id, the 15 bytes that an interface name may
    /// have (IFNAMSIZ, netdevice(7)).
    pub fn tap_name(&self) -> String {
        format!("{TAP_PREFIX}{}", self.0)
    }

    /// MAC address of the guest's NIC: locally administered, unicast.
    pub fn mac(&self) -> MacAddress {
        let [_, _, _, b, c, d, e, f] = self.bits().to_be_bytes();
        MacAddress([2, b, c, d, e, f])
    }

    /// Name of a block device or another host object of this VM: `banger-ID-ROLE`.
    pub fn object_name(&self, role: &str) -> String {
        format!("banger-{}-{role}", self.0)
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VmId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == DIGITS && text.bytes().all(hex) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadId::new(text, "a VM id (12 hex digits)"))
    }
}

impl TryFrom<String> for VmId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<VmId> for String {
    fn from(id: VmId) -> Self {
        id.0
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    /// Six hex bytes with colons, as `ip` and `nft` write them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_derive_from_the_id() {
        let id: VmId = "0123456789ab".parse().unwrap();
        assert_eq!(id.tap_name(), "fc-0123456789ab");
        assert_eq!(id.mac().to_string(), "02:23:45:67:89:ab");
        assert_eq!(id.object_name("root"), "banger-0123456789ab-root");
        let last: VmId = "ffffffffffff".parse().unwrap();
        assert_eq!(last.mac().to_string(), "02:ff:ff:ff:ff:ff");
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "0123456789a",
            "0123456789abc",
            "0123456789aB",
            "0123456789ag",
            "../../../../x",
            "é23456789ab",
            "+123456789ab",
            "0x3456789abc",
            "0123456789a\n",
        ] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
            assert!(serde_json::from_value::<VmId>(bad.into()).is_err(), "{bad}");
        }
        let error = "\u{1b}[2J".repeat(100).parse::<VmId>().unwrap_err().to_string();
        assert!(error.len() < 700 && !error.contains('\u{1b}'), "{error}");
    }

    proptest! {
        #[test]
        fn every_generated_id_is_valid(bits: u64) {
            let id = VmId::from_entropy(bits);
            prop_assert_eq!(id.as_str().parse::<VmId>().unwrap(), id.clone());
            prop_assert_eq!(id.bits(), bits & MASK);
            prop_assert!(id.tap_name().len() == 15);
            prop_assert!(id.uid() >= FIRST_UID && id.uid() < FIRST_UID + UIDS as u32);
            let [first, ..] = id.mac().0;
            prop_assert_eq!(first & 3, 2, "locally administered, unicast");
        }
    }
}
