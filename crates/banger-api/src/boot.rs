//! How far a guest's own boot has come, and which part of a start a command waits for.

use serde::{Deserialize, Serialize};

/// Longest wait that can be asked for, in milliseconds.
pub const MAX_WAIT_MS: u64 = 3600 * 1000;

/// Which part of a start is waited for. Each includes those before it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// The guest agent answers.
    Agent,
    /// The guest has its network, disks and files, and its init is running.
    Ready,
    /// The init has finished booting.
    Booted,
}

impl WaitFor {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Ready, Self::Booted];

    /// The word used on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Ready => "ready",
            Self::Booted => "booted",
        }
    }
}

impl std::str::FromStr for WaitFor {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text).ok_or(UnknownStage)
    }
}

/// Not a stage that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of agent, ready, booted")]
pub struct UnknownStage;

/// State of a guest's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootState {
    /// It is booting.
    Booting,
    /// It has booted.
    Running,
    /// It has booted, and services failed.
    Degraded,
    /// It does not report, and has come to rest.
    Unknown,
}

impl BootState {
    /// The word used in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
        }
    }
}

/// A guest's boot, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootView {
    /// State of the init.
    pub state: BootState,
    /// When it left `booting`: milliseconds since the guest's kernel started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// How the agent knows, such as `systemd: running`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Services that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

impl BootView {
    /// A boot of which nothing is known yet.
    pub fn booting() -> Self {
        let (after_ms, source, failed) = (None, String::new(), Vec::new());
        Self { state: BootState::Booting, after_ms, source, failed }
    }

    /// Whether nothing more will be reported.
    pub fn is_over(&self) -> bool {
        self.state != BootState::Booting
    }
}

/// A wait, as a client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// For what.
    #[serde(rename = "wait")]
    pub stage: WaitFor,
    /// How long, in milliseconds; at most [`MAX_WAIT_MS`].
    pub timeout_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_ordered_and_named() {
        assert!(WaitFor::Agent < WaitFor::Ready && WaitFor::Ready < WaitFor::Booted);
        for stage in WaitFor::ALL {
            assert_eq!(stage.as_str().parse(), Ok(stage));
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
        assert_eq!("Booted".parse::<WaitFor>(), Err(UnknownStage));
    }
}
