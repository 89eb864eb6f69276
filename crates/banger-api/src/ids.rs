//! Typed ids. A VM's id names every object it has on the host, so it is short and file-safe.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct BadId {
    text: String,
    wanted: &'static str,
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $wanted:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            utoipa::ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId { text: text.chars().take(80).collect(), wanted: $wanted })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A VM: 12 lowercase hex digits (48 random bits), so that `bgr` + id fits an interface name.
    VmId, "a VM id (12 hex digits)", |text| text.len() == 12 && is_lower_hex(text)
);
text_id!(
    /// An operation: `op-` and six characters of [`OP_ALPHABET`].
    OpId, "an operation id (op-xxxxxx)", |text| text
        .strip_prefix("op-")
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| OP_ALPHABET.contains(&b)))
);
text_id!(
    /// An image: the first 16 lowercase hex digits of its fingerprint.
    ImageId, "an image id (16 hex digits)", |text| text.len() == 16 && is_lower_hex(text)
);
text_id!(
    /// A kernel: the first 16 lowercase hex digits of its fingerprint.
    KernelId, "a kernel id (16 hex digits)", |text| text.len() == 16 && is_lower_hex(text)
);

/// Letters and digits that are not taken for one another when read aloud (Crockford's base 32).
pub const OP_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl VmId {
    /// An id from 48 random bits.
    pub fn from_entropy(bits: u64) -> Self {
        Self(format!("{:012x}", bits & 0xffff_ffff_ffff))
    }

    /// The id's 48 bits as a number, for what is derived from it (uid, MAC address).
    pub fn bits(&self) -> u64 {
        u64::from_str_radix(&self.0, 16).unwrap_or_default()
    }
}

impl OpId {
    /// An id from 30 random bits.
    pub fn from_entropy(bits: u64) -> Self {
        let mut text = String::from("op-");
        for place in 0..6 {
            let digit = (bits >> (place * 5)) & 31;
            text.push(char::from(OP_ALPHABET[digit as usize]));
        }
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_parse() {
        for bits in [0, 1, u64::MAX, 0x1234_5678_9abc] {
            let vm = VmId::from_entropy(bits);
            assert_eq!(vm.as_str().parse::<VmId>(), Ok(vm.clone()));
            assert_eq!(vm.bits(), bits & 0xffff_ffff_ffff);
            let op = OpId::from_entropy(bits);
            assert_eq!(op.as_str().parse::<OpId>(), Ok(op));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "12345678901", "1234567890123", "12345678901g", "12345678901A", "../../etc/x"]
        {
            assert!(text.parse::<VmId>().is_err(), "{text}");
        }
        for text in ["op-", "op-12345", "op-12345i", "12345678", "op-1234567"] {
            assert!(text.parse::<OpId>().is_err(), "{text}");
        }
    }
}
