//! What banger writes for coding agents, so that their shell commands run in a machine: hooks,
//! plugins and a skill, each merged into the user's files and taken out again.
//!
//! [`install`] and [`uninstall`] give a [`Plan`]: the files with their content before and after. A
//! plan is shown, and then carried out. [`hook`] is the other half: it answers the agent's question
//! before each command. [`acp`] carries the messages between an editor and an agent in a machine.

pub mod acp;
mod edit;
pub mod hook;
mod plan;
mod settings;
mod texts;

use std::path::{Path, PathBuf};

pub use banger_api::agent::Agent;

pub use edit::Change;
pub use plan::{Plan, install, machine, uninstall};

/// A program that speaks the Agent Client Protocol for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpProgram {
    /// It and its arguments.
    pub command: &'static [&'static str],
    /// The npm package that has it.
    pub package: &'static str,
}

/// What speaks the Agent Client Protocol for an agent: opencode itself, or an adapter.
pub fn acp_program(agent: Agent) -> AcpProgram {
    match agent {
        Agent::Claude => AcpProgram {
            command: &["claude-agent-acp"],
            package: "@zed-industries/claude-agent-acp",
        },
        Agent::Opencode => AcpProgram { command: &["opencode", "acp"], package: agent.package() },
        Agent::Codex => {
            AcpProgram { command: &["codex-acp"], package: "@zed-industries/codex-acp" }
        }
    }
}

/// Where an agent's commands run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The folder of this host that the agent works in.
    pub host: PathBuf,
    /// Name of the machine.
    pub vm: String,
    /// The same folder in the machine.
    pub guest: String,
}

impl Workspace {
    /// The folder in the machine for one of this host: beneath the workspace the same path, and
    /// the workspace itself for any other.
    pub fn guest_folder(&self, cwd: &Path) -> String {
        let beneath = cwd.strip_prefix(&self.host).ok().and_then(Path::to_str);
        match beneath {
            None | Some("") => self.guest.clone(),
            Some(beneath) => format!("{}/{beneath}", self.guest.trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_workspace_are_mapped() {
        let workspace =
            Workspace { host: "/home/u/app".into(), vm: "web".into(), guest: "/root/app".into() };
        for (host, guest) in [
            ("/home/u/app", "/root/app"),
            ("/home/u/app/src/a b", "/root/app/src/a b"),
            ("/home/u/apple", "/root/app"),
            ("/tmp", "/root/app"),
        ] {
            assert_eq!(workspace.guest_folder(Path::new(host)), guest, "{host}");
        }
    }
}
