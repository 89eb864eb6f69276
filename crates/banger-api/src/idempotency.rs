//! Keys with which a client repeats a request without repeating its effect.

use std::fmt;
use std::str::FromStr;

/// Maximum length of a key, in bytes.
pub const MAX_KEY: usize = 255;

/// How long the daemon keeps the answer to a request with a key, in milliseconds: one day.
pub const KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// A client's own id of a request: the value of the header `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {MAX_KEY} visible ASCII characters")]
pub struct BadKey;

impl IdempotencyKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IdempotencyKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let allowed = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > MAX_KEY || !allowed {
            return Err(BadKey);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_visible() {
        for good in ["a", "5e1f09c2-17", "\"quoted\"", &"k".repeat(MAX_KEY)] {
            assert!(good.parse::<IdempotencyKey>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "ä", &"k".repeat(MAX_KEY + 1)] {
            assert_eq!(bad.parse::<IdempotencyKey>(), Err(BadKey), "{bad}");
        }
    }
}
