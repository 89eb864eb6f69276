//! Files and settings of the host's user that guests receive at each start.

use serde::{Deserialize, Serialize};

/// What a start did with one of them. It never has contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HandedOver {
    /// What it is.
    pub kind: HandoverKind,
    /// Path in the guest.
    pub guest: String,
    /// Whether the guest has it.
    pub state: HandoverState,
    /// Why the guest does not have it, or what was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Kinds of files and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandoverKind {
    /// `user.name` and `user.email` of git's global configuration.
    GitIdentity,
    /// The login of opencode.
    OpencodeLogin,
    /// The login of Claude Code.
    ClaudeLogin,
    /// The login of Codex.
    CodexLogin,
    /// An entry of `[[file_sync]]`.
    FileSync,
}

impl HandoverKind {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitIdentity => "git identity",
            Self::OpencodeLogin => "opencode login",
            Self::ClaudeLogin => "claude login",
            Self::CodexLogin => "codex login",
            Self::FileSync => "file",
        }
    }
}

/// Results. Unless it was copied, the guest keeps what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandoverState {
    /// The guest has it.
    Copied,
    /// The host does not have it.
    Missing,
    /// The daemon cannot read it.
    Unreadable,
    /// It is too large, or neither a file nor a folder.
    Refused,
    /// The guest could not write it.
    Failed,
}
