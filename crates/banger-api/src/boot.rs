//! Progress of the guest's boot, and the stage of a start that a command waits for.

use serde::{Deserialize, Serialize};

/// Maximum wait in milliseconds.
pub const MAX_WAIT_MS: u64 = 3600 * 1000;

/// A stage of a start that a command can wait for. Each stage includes the earlier ones.
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
    /// All stages, in order.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Ready, Self::Booted];

    /// Name of the stage on the command line and in JSON.
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

/// Not a stage of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of agent, ready, booted")]
pub struct UnknownStage;

/// State of the guest's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootState {
    /// The init is booting.
    Booting,
    /// The init has finished booting.
    Running,
    /// The init has finished booting, and some services failed.
    Degraded,
    /// The init does not report its state, and the system has become idle.
    Unknown,
}

impl BootState {
    /// Name of the state in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
        }
    }
}

/// State of a guest's boot, as reported by its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootView {
    /// State of the init.
    pub state: BootState,
    /// When the state left `booting`: milliseconds since the guest's kernel started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Source of the state, such as `systemd: running`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Failed services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

impl BootView {
    /// A boot without a report yet.
    pub fn booting() -> Self {
        let (after_ms, source, failed) = (None, String::new(), Vec::new());
        Self { state: BootState::Booting, after_ms, source, failed }
    }

    /// Whether the state is final.
    pub fn is_over(&self) -> bool {
        self.state != BootState::Booting
    }
}

/// Parameters of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The stage.
    #[serde(rename = "wait")]
    pub stage: WaitFor,
    /// Timeout in milliseconds; at most [`MAX_WAIT_MS`].
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
