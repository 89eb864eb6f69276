//! Checks of the host, for `doctor` and for other commands.

use serde::{Deserialize, Serialize};

use crate::hint::{self, Hint};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Check {
    /// Stable code, `qemu.program`.
    pub code: String,
    /// Verdict.
    pub verdict: Verdict,
    /// The observation.
    pub seen: String,
    /// Advice, if something must be changed.
    #[serde(default, alias = "hint", deserialize_with = "hint::read")]
    #[serde(serialize_with = "hint::write", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<hint::WordedHint>)]
    pub hints: Vec<Hint>,
    /// Features that depend on it: `start`, `image`, `nat`, …
    pub needed_for: Vec<String>,
}

impl Check {
    /// Its hints in the words of the command line.
    pub fn hint(&self) -> Option<String> {
        hint::words(&self.hints)
    }
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Passed.
    Ok,
    /// Works, with a restriction.
    Warning,
    /// Something will not work.
    Missing,
}
