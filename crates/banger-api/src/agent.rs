//! Coding agents, and their logins in machines.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::handover::HandoverKind;
use crate::{ApiError, ByteString, ErrorCode, Hint};

/// Maximum length of a path in bytes.
const MAX_PATH: usize = 4095;

/// A coding agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// Claude Code.
    Claude,
    /// opencode.
    Opencode,
    /// Codex.
    Codex,
}

impl Agent {
    /// All agents.
    pub const ALL: [Self; 3] = [Self::Claude, Self::Opencode, Self::Codex];

    /// Its name, which is that of its program too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Opencode => "opencode",
            Self::Codex => "codex",
        }
    }

    /// The npm package that has its program.
    pub fn package(self) -> &'static str {
        match self {
            Self::Claude => "@anthropic-ai/claude-code",
            Self::Opencode => "opencode-ai",
            Self::Codex => "@openai/codex",
        }
    }

    /// Its login file, in the home folder of a user.
    pub fn login(self) -> &'static str {
        match self {
            Self::Claude => ".claude/.credentials.json",
            Self::Opencode => ".local/share/opencode/auth.json",
            Self::Codex => ".codex/auth.json",
        }
    }

    /// How a report about its login names it.
    pub fn login_kind(self) -> HandoverKind {
        match self {
            Self::Claude => HandoverKind::ClaudeLogin,
            Self::Opencode => HandoverKind::OpencodeLogin,
            Self::Codex => HandoverKind::CodexLogin,
        }
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Agent {
    type Err = ApiError;

    fn from_str(name: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|agent| agent.as_str() == name).ok_or_else(|| {
            let text = format!("`{}` is not a known agent", crate::excerpt(name));
            let names = Self::ALL.map(Self::as_str).join(", ");
            ApiError::new(ErrorCode::BadRequest, text)
                .with_hint(Hint::text(format!("the agents are {names}")))
        })
    }
}

/// The login of an agent, which the machine's root gets at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentLogin {
    /// The agent.
    pub agent: Agent,
    /// Absolute path of its login file on the host.
    pub host: ByteString,
}

impl AgentLogin {
    /// Checks the path.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the path.
    pub fn check(&self) -> Result<(), ApiError> {
        let path: &Path = self.host.as_path();
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let bytes = self.host.as_bytes();
        if path.is_absolute()
            && path.components().all(is_plain)
            && bytes.len() <= MAX_PATH
            && !bytes.contains(&0)
        {
            return Ok(());
        }
        let shown = crate::excerpt(&self.host.to_string_lossy()).to_string();
        let text = format!("`{shown}` is not the absolute path of a login file");
        Err(ApiError::new(ErrorCode::BadRequest, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_has_an_absolute_path() {
        let check = |host: &str| AgentLogin { agent: Agent::Codex, host: host.into() }.check();
        assert_eq!(check("/home/u/.codex/auth.json"), Ok(()));
        for wrong in ["", ".codex/auth.json", "/home/../etc/shadow", "/a\0b"] {
            let error = check(wrong).unwrap_err();
            assert!(error.message.contains("is not the absolute path of a login"), "{error:?}");
        }
        assert!(check(&"/a".repeat(3000)).is_err());
    }
}
