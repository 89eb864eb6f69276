//! Files that are banger's own as a whole.

use crate::hook::quoted;
use crate::{Agent, Workspace};

/// In each of them.
pub const MARK: &str = "banger agent install";

/// The skill: what an agent should know of the machine.
pub fn skill(workspace: &Workspace) -> String {
    let Workspace { host, vm, guest } = workspace;
    let host = host.display();
    format!(
        "---
name: banger
description: What the Linux machine `{vm}` is, in which the shell commands of this folder run. \
Use it when a command fails there, or when a file, a port or a log of the machine is needed.
---

<!-- Made by `banger agent install`; `--uninstall` removes it. -->

Shell commands of this folder run in the virtual machine `{vm}`, not on the host: a hook rewrites
them. `{host}` is `{guest}` there. Commands are root's, and each
one starts in the folder of the session.

The command `banger` is on the host, which shell commands do not reach. Ask the user to run there:

| for | command |
| --- | --- |
| a machine that is stopped | `banger vm start {vm}` |
| a file into it, out of it | `banger cp FILE {vm}:PATH`, `banger cp {vm}:PATH FILE` |
| a port of it on 127.0.0.1 | `banger vm set {vm} -p 8080:80`, `banger vm ports {vm}` |
| its console | `banger vm logs {vm} --tail 50` |

If the machine is gone, commands fail. Do not work around that: tell the user.
"
    )
}

/// The plugin for both major versions of opencode: asks [`crate::hook`] before each command.
pub fn plugin(command: &[String]) -> String {
    let words = serde_json::Value::from(command.to_vec());
    include_str!("opencode_plugin.js").replacen("COMMAND", &words.to_string(), 1)
}

/// The words that ask banger before a command.
pub fn hook_words(agent: Agent, workspace: &Workspace, program: &str) -> Vec<String> {
    let host = workspace.host.display().to_string();
    let words = [program, "agent", "hook", agent.as_str(), "--vm", &workspace.vm];
    let more = ["--host", &host, "--guest", &workspace.guest];
    words.into_iter().chain(more).map(str::to_owned).collect()
}

/// The same as a line for the shell. Any failure, also that of a banger that is gone, is killed or
/// hangs, blocks the command: agents take only exit code 2 for that, Codex only with a message, and
/// a hook that exceeds its time limit (`settings.rs`) blocks nothing.
pub fn hook_line(agent: Agent, workspace: &Workspace, program: &str) -> String {
    let words = hook_words(agent, workspace, program);
    let plain =
        |word: &String| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let word = |word: &String| if plain(word) { word.clone() } else { quoted(word) };
    let words = words.iter().map(word).collect::<Vec<_>>().join(" ");
    format!("timeout 20 {words} || {{ echo 'banger: the command is blocked' >&2; exit 2; }}")
}
