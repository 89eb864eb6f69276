//! Checks of the host, for `doctor` and for other commands.

use serde::{Deserialize, Serialize};

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Features that depend on it: `start`, `image`, `nat`, …
    pub needed_for: Vec<String>,
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
