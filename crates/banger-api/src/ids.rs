//! Typed ids of operations, images and kernels. The id of a VM, from which the names of its host
//! objects derive, is [`banger_base::VmId`].

use std::fmt;
use std::str::FromStr;

pub use banger_base::BadId;
use serde::{Deserialize, Serialize};

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $wanted:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            utoipa::ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = $pattern)]
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
                    Err(BadId::new(text, $wanted))
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
    /// An operation: `op-` and six characters of [`OP_ALPHABET`].
    OpId, "an operation id (op-xxxxxx)", "^op-[0123456789abcdefghjkmnpqrstvwxyz]{6}$", |text| text
        .strip_prefix("op-")
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| OP_ALPHABET.contains(&b)))
);
text_id!(
    /// An image: the first 16 lowercase hex digits of its fingerprint.
    ImageId, "an image id (16 hex digits)", "^[0-9a-f]{16}$",
    |text| text.len() == 16 && is_lower_hex(text)
);
text_id!(
    /// A kernel: the first 16 lowercase hex digits of its fingerprint.
    KernelId, "a kernel id (16 hex digits)", "^[0-9a-f]{16}$",
    |text| text.len() == 16 && is_lower_hex(text)
);

/// Letters and digits that cannot be confused with each other (Crockford's base 32).
pub const OP_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

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
    fn generated_ids_parse() {
        for bits in [0, 1, u64::MAX, 0x1234_5678_9abc] {
            let op = OpId::from_entropy(bits);
            assert_eq!(op.as_str().parse::<OpId>(), Ok(op));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["op-", "op-12345", "op-12345i", "12345678", "op-1234567"] {
            assert!(text.parse::<OpId>().is_err(), "{text}");
        }
    }
}
